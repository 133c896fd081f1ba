package drain

import (
	"os"
	"testing"
)

// roles are the programs this test binary can be when it starts itself.
var roles = map[string]func(){
	"server that drains":     func() { serveUntilStopped(drainingServe) },
	"server that shuts down": func() { serveUntilStopped(plainShutdown) },
	"slow start":             startSlowly,
}

const roleVariable = "GRACE_TEST_ROLE"

func TestMain(m *testing.M) {
	if role, ok := roles[os.Getenv(roleVariable)]; ok {
		role()
		os.Exit(0)
	}
	os.Exit(m.Run())
}
