package handoff

import (
	"os"
	"testing"
)

// roles are the programs this test binary can be when it starts itself.
var roles = map[string]func(){}

// roleVariable names the role.
const roleVariable = "GRACE_TEST_ROLE"

// playRole is to be called by TestMain: it plays the role that this process was started for, or runs the tests.
func playRole(m *testing.M) {
	if role, ok := roles[os.Getenv(roleVariable)]; ok {
		role()
		os.Exit(0)
	}
	os.Exit(m.Run())
}
