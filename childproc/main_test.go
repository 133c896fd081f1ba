package childproc

import (
	"os"
	"testing"

	"github.com/gracerun/grace/internal/noexec"
	"github.com/gracerun/grace/internal/requirement"
)

// roles are the programs this test binary can be when it starts itself.
var roles = map[string]func(){}

const roleVariable = "GRACE_TEST_ROLE"

func TestMain(m *testing.M) {
	noexec.Main()
	if role, ok := roles[os.Getenv(roleVariable)]; ok {
		role()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Where no file in memory is executed, the shim is a copy of this program.
func TestWithoutStub(t *testing.T) {
	if noexec.Denied() {
		t.Skip("this is the other run")
	}
	if os.Geteuid() != 0 {
		requirement.Check(t, "root", os.ErrPermission)
	}
	noexec.TestAgain(t)
}
