package chaos

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// processEnv makes the test binary an agent or a server. Its value is a
// processConfig in JSON.
const processEnv = "AGENTMESH_CHAOS_PROCESS"

// processConfig is what a process is to be; one of the two is set.
type processConfig struct {
	Agent  *agentConfig
	Server *serverConfig
}

func TestMain(m *testing.M) {
	if text := os.Getenv(processEnv); text != "" {
		if err := processMain(text); err != nil {
			say("problem %v", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func processMain(text string) error {
	var cfg processConfig
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		return err
	}
	if cfg.Agent != nil {
		return cfg.Agent.run()
	}
	return cfg.Server.run()
}

// say writes a line of the journal with one write(2): it is there as a whole, or
// not at all, when the process is killed.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stdout, format+"\n", args...)
}
