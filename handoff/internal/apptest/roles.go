// Package apptest starts a test binary again, in the role of an app.
package apptest

import (
	"os"
	"testing"
)

// Roles are the programs this test binary can be when it starts itself.
var Roles = map[string]func(){}

// RoleVariable names the role.
const RoleVariable = "GRACE_TEST_ROLE"

// Main is to be called by TestMain: it plays the role that this process was started for, or runs the tests.
func Main(m *testing.M) {
	if role, ok := Roles[os.Getenv(RoleVariable)]; ok {
		role()
		os.Exit(0)
	}
	os.Exit(m.Run())
}
