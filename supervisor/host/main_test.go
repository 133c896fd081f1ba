package host

import (
	"os"
	"testing"
)

// roles are the programs this test binary can be when it starts itself.
var roles = map[string]func(args []string){}

const roleVariable = "GRACE_TEST_ROLE"

func TestMain(m *testing.M) {
	if role, ok := roles[os.Getenv(roleVariable)]; ok {
		role(os.Args[1:])
		os.Exit(0)
	}
	os.Exit(m.Run())
}
