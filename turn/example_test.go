package turn_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/infrafabric/agentmesh/turn"
)

// Two servers, the first by two ways, with credentials that are computed here.
func ExampleNewPool() {
	secret := turn.SharedSecret("from the server's configuration", "agent-finance", time.Hour)
	pool, err := turn.NewPool(turn.PoolConfig{
		Endpoints: []turn.Endpoint{
			{URL: "turn:192.0.2.1:3478", Credentials: secret},
			{URL: "turns:192.0.2.1:5349", Credentials: secret},
			{URL: "turn:[2001:db8::2]:3478", Credentials: secret},
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	// In a mesh: mesh.Config{TURN: pool, …}
	for _, s := range pool.Status() {
		fmt.Println(s.URL) // and s.Health, which is unprobed for a moment
	}
	// Output:
	// turn:192.0.2.1:3478
	// turns:192.0.2.1:5349
	// turn:[2001:db8::2]:3478
}

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
