package socket_test

import (
	"fmt"
	"os/exec"

	"github.com/gracerun/grace/handoff/socket"
)

// A server that the program starts for itself must not take the variables for its own.
func ExampleCleanEnv() {
	helper := exec.Command("env")
	helper.Env = socket.CleanEnv([]string{"LANG=C", "LISTEN_FDS=1", "NOTIFY_SOCKET=/run/notify", "GRACE_GENERATION=3"})
	out, err := helper.Output()
	fmt.Print(string(out), err)
	// Output:
	// LANG=C
	// <nil>
}
