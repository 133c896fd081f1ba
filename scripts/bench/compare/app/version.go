package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// version is what was deployed.
type version struct{ number, fault string }

func readVersion(path string) (version, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return version{}, err
	}
	words := strings.Fields(string(text))
	switch len(words) {
	case 1:
		return version{number: words[0]}, nil
	case 2:
		return version{words[0], words[1]}, nil
	}
	return version{}, fmt.Errorf("%s does not have a number and a fault: %q", path, text)
}

// fail does what a version with a fault does instead of serving.
func (v version) fail() error {
	switch v.fault {
	case "crash":
		return errors.New("this version crashes at its start")
	case "never":
		time.Sleep(time.Hour) // an empty select would be a deadlock, which ends the program
	}
	return nil
}
