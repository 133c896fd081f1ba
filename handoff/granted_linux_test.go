package handoff

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/gracerun/grace/handoff/internal/apptest"
	"github.com/gracerun/grace/handoff/socket"
)

func init() {
	apptest.Roles["reader"] = reader
}

// reader is told "LIBRARY NAME NETWORK ADDR", and answers with the inode of the socket that the library finds for it.
func reader() {
	if slices.Contains(strings.Split(os.Getenv("PIDVARS"), " "), "LISTEN_PID") {
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	}
	apptest.Obey(func(order string) string {
		words := strings.Fields(order)
		if words[0] == "go-systemd" {
			return activated(words[1])
		}
		listen := func(network, addr string) (any, error) { return Listen(network, addr) }
		if words[2] == "udp" || words[2] == "unixgram" {
			listen = func(network, addr string) (any, error) { return ListenPacket(network, addr) }
		}
		return apptest.InodeOrError(listen(words[2], words[3]))
	})
}

func activated(name string) string {
	for _, f := range activation.Files(false) {
		if f.Name() == name {
			return apptest.InodeOrError(f, nil)
		}
	}
	return "no " + name
}

func TestGrantedSocketsAreFound(t *testing.T) {
	folder := t.TempDir()
	listeners := []*socket.Listener{
		hold(t, "web=127.0.0.1:0"), hold(t, "six=[::1]:0"), hold(t, "dns=udp4://127.0.0.1:0"),
		hold(t, "path=unix://"+folder+"/s"), hold(t, "gram=unixgram://"+folder+"/g"),
	}
	for library, dialects := range map[string][]string{
		"go-systemd": {"systemd"}, "handoff": {"systemd", "server-starter", "einhorn", "nginx", "php-fpm", "tableflip"},
	} {
		for _, dialect := range dialects {
			t.Run(library+" "+dialect, func(t *testing.T) {
				grant := issue(t, []string{dialect}, listeners...)
				reader := apptest.Start(t, "reader", given(grant, "PIDVARS="+strings.Join(grant.PIDVars, " ")))
				for _, l := range listeners {
					network := strings.TrimRight(l.Network(), "46")
					got := reader.Ask(t, strings.Join([]string{library, l.Name(), network, l.Bound()}, " "))
					if got != fmt.Sprint(l.Inode()) {
						t.Errorf("%s %s is %s, not %d", l.Name(), l.Bound(), got, l.Inode())
					}
				}
			})
		}
	}
}
