package turn_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/infrafabric/agentmesh/turn"
)

func ExampleSharedSecret() {
	credentials := turn.SharedSecret("north", "agent-finance", 10*time.Minute)
	c, err := credentials(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(time.Until(c.Expires).Round(time.Minute))
	// Output: 10m0s
}

func ExampleProbe() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := turn.Probe(ctx, nil, turn.Relay{URL: "turn:127.0.0.1:1?transport=tcp", Username: "u", Password: "p"})
	fmt.Println(errors.Is(err, turn.ErrUnreachable))
	// Output: true
}
