package corpus_test

import (
	"fmt"

	"github.com/infrafabric/agentmesh/internal/corpus"
)

func ExampleIncidents() {
	reports, err := corpus.Incidents()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(reports), "reports")
	// Output: 200 reports
}
