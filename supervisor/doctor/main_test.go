package doctor_test

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/gracerun/grace/supervisor/doctor"
)

// This test binary is, by its first argument, also a test app, or a doctor
// somewhere else than the test.
const (
	asTestApp = "test app"
	asDoctor  = "doctor"
	asDeaf    = "deaf" // a test app that does nothing
)

func TestMain(m *testing.M) {
	if len(os.Args) < 3 {
		os.Exit(m.Run())
	}
	var err error
	switch as, argument := os.Args[1], os.Args[2]; as {
	case asTestApp:
		err = doctor.RunTestApp(argument)
	case asDoctor:
		err = examineAs(argument)
	case asDeaf:
		time.Sleep(time.Hour)
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// task is what a doctor elsewhere is told.
type task struct {
	Options doctor.Options
	Deny    []uintptr // system calls that are to fail with EPERM
}

func examineAs(text string) error {
	var e task
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		return err
	}
	if err := deny(e.Deny); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(doctor.Examine(e.Options))
}

func options() doctor.Options {
	return doctor.Options{DrainTimeout: 5 * time.Second, TestApp: []string{"app of a test", asTestApp}}
}
