//go:build linux

package main

import (
	"strings"
	"testing"

	"github.com/gracerun/grace/cmd/load"
)

// capturedUpgrades is how often each captured server is upgraded.
const capturedUpgrades = 20

func TestCapturedServersLoseNothing(t *testing.T) {
	for name, test := range map[string]struct {
		command string
		clients map[load.Kind]int
	}{
		"static Go":                      {appBinary + " -addr ADDR", everyKind},
		"python, which dies of its TERM": {"python3 -m http.server PORT --bind 127.0.0.1", map[load.Kind]int{load.NewConnection: 4}},
	} {
		t.Run(name, func(t *testing.T) {
			addr := freeAddress(t)
			command := strings.NewReplacer("ADDR", addr, "PORT", addr[strings.LastIndex(addr, ":")+1:]).Replace(test.command)
			s := grace(t, append([]string{"--settle", "50ms", "--"}, strings.Fields(command)...)...)
			s.ready(1)
			under(t, load.Config{Addr: addr, Clients: test.clients}, func() { s.upgrades(capturedUpgrades) })
			s.stop()
		})
	}
}
