package steering

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"golang.org/x/sys/unix"
)

func TestSteeredConnectionsHaveTheOptionsOfTheirListener(t *testing.T) {
	apptest.RequireRoot(t) // a mark needs CAP_NET_ADMIN
	var options []string
	for _, name := range slices.Sorted(maps.Keys(apptest.SocketOptions)) {
		if name != "defer-accept" { // it is refused together with steer=true
			options = append(options, name+"="+apptest.SocketOptions[name].Value)
		}
	}
	for name, open := range map[string]func(t *testing.T, options string) (fd int, bound string){
		"first generation": func(t *testing.T, options string) (int, string) {
			l := reserve(t, "127.0.0.1:0?steer=true&"+options)
			return own(t, newSteering(t), first, l).fd, l.Bound()
		},
		"second generation": func(t *testing.T, options string) (int, string) {
			s, l := newSteering(t), reserve(t, "127.0.0.1:0?steer=true&"+options)
			own(t, s, first, l)
			successor := own(t, s, second, l)
			_, err := s.Steer(Split{Generation: 2})
			apptest.Must(t, err)
			return successor.fd, l.Bound()
		},
	} {
		t.Run(name, func(t *testing.T) {
			apptest.CheckOptions(t, strings.Join(options, "&"), open)
			fd, bound := open(t, "")
			if got := apptest.OptionOf(t, apptest.AcceptFrom(t, fd, bound), unix.IPPROTO_TCP, unix.TCP_NODELAY); got == 0 {
				t.Error("without an option Nagle's algorithm is on")
			}
		})
	}
}

// A socket in the place of an app's own cannot know its options.
func TestFreshSocketsDoNotDelay(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	fd, err := s.Fresh(first, at)
	apptest.Must(t, err)
	defer unix.Close(fd)
	if apptest.OptionOf(t, fd, unix.IPPROTO_TCP, unix.TCP_NODELAY) == 0 {
		t.Error("Nagle's algorithm is on")
	}
}
