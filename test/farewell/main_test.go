// Package farewell_test tests that kept-alive clients leave a server that knows nothing of grace without a lost request.
package farewell_test

import (
	"os"
	"testing"

	"github.com/gracerun/grace/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Run(m.Run)) }
