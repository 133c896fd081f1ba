// Package requirement decides for tests that need more than every machine has.
package requirement

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// variable lists what must be there, separated by commas; "all" is everything.
const variable = "GRACE_REQUIRE"

// Check skips a test that cannot run here because of err, and fails it where
// GRACE_REQUIRE says that it must, as on CI. It does nothing if err is nil.
func Check(t testing.TB, what string, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if required := strings.Split(os.Getenv(variable), ","); slices.Contains(required, what) || slices.Contains(required, "all") {
		t.Fatalf("%s is required: %v", what, err)
	}
	t.Skipf("no %s: %v", what, err)
}
