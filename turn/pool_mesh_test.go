package turn_test

import (
	"github.com/infrafabric/agentmesh/mesh"
	"github.com/infrafabric/agentmesh/turn"
)

var _ mesh.Relays = (*turn.Pool)(nil)
