// Package farewell_test tests that kept-alive clients leave a server that knows nothing of grace without a lost request.
package farewell_test

import (
	"os"
	"sync"
	"testing"

	"github.com/gracerun/grace/handoff/farewell"
	"github.com/gracerun/grace/internal/requirement"
	"github.com/gracerun/grace/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Run(m.Run)) }

// opens says whether the programs can be loaded, as grace does: where Supported finds the rights, a kernel may refuse them still.
var opens = sync.OnceValue(func() error {
	a, err := farewell.Open()
	if err != nil {
		return err
	}
	return a.Close()
})

// needFarewell skips a test where grace cannot ask clients to leave, or fails it as on CI.
func needFarewell(t *testing.T) {
	t.Helper()
	requirement.Check(t, "bpf", opens())
}
