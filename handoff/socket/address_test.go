package socket

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	tests := []struct {
		written string
		want    Address
	}{
		{"8080", Address{Name: "8080", Network: "tcp", Addr: ":8080"}},
		{":8080", Address{Name: "8080", Network: "tcp", Addr: ":8080"}},
		{":0", Address{Name: "0", Network: "tcp", Addr: ":0"}},
		{"127.0.0.1:8080", Address{Name: "8080", Network: "tcp", Addr: "127.0.0.1:8080"}},
		{"[::1]:8080", Address{Name: "8080", Network: "tcp", Addr: "[::1]:8080"}},
		{"[fe80::1%eth0]:80", Address{Name: "80", Network: "tcp", Addr: "[fe80::1%eth0]:80"}},
		{"localhost:8080", Address{Name: "8080", Network: "tcp", Addr: "localhost:8080"}},
		{"my-host.example:80", Address{Name: "80", Network: "tcp", Addr: "my-host.example:80"}},
		{"web=8080", Address{Name: "web", Network: "tcp", Addr: ":8080"}},
		{"web_1.a-b=tcp://:80", Address{Name: "web_1.a-b", Network: "tcp", Addr: ":80"}},
		{"tcp4://0.0.0.0:80", Address{Name: "80", Network: "tcp4", Addr: "0.0.0.0:80"}},
		{"tcp6://[::]:80", Address{Name: "80", Network: "tcp6", Addr: "[::]:80"}},
		{"tcp6://:80?v6only=false", Address{Name: "80", Network: "tcp6", Addr: ":80", V6Only: v6Open}},
		{"[::]:80?v6only=true&backlog=1024", Address{Name: "80", Network: "tcp", Addr: "[::]:80", V6Only: v6Closed, Backlog: 1024}},
		{"web=:80?steer=true", Address{Name: "web", Network: "tcp", Addr: ":80", Steer: true}},
		{"unix:///a?steer=true&mode=0600", Address{Name: "a", Network: "unix", Addr: "/a", Steer: true, Mode: 0o600}},
		{":80?nodelay=false&keepalive=true&keepalive-time=1m", Address{Name: "80", Network: "tcp", Addr: ":80", Options: []SocketOption{
			{"keepalive", 1}, {"keepalive-time", 60}, {"nodelay", 0},
		}}},
		{"udp://53?receive-buffer=4M&mark=0x10", Address{Name: "53", Network: "udp", Addr: ":53", Options: []SocketOption{
			{"mark", 16}, {"receive-buffer", 4 << 20},
		}}},
		{"fd://web?user-timeout=1500ms", Address{Name: "web", Network: "fd", Addr: "web", Options: []SocketOption{{"user-timeout", 1500}}}},
		{"localhost:80?v6only=1", Address{Name: "80", Network: "tcp", Addr: "localhost:80", V6Only: v6Closed}},
		{"udp://53", Address{Name: "53", Network: "udp", Addr: ":53"}},
		{"udp4://127.0.0.1:53", Address{Name: "53", Network: "udp4", Addr: "127.0.0.1:53"}},
		{"dns=udp6://[::1]:53", Address{Name: "dns", Network: "udp6", Addr: "[::1]:53"}},
		{"unix:///run/app.sock", Address{Name: "app.sock", Network: "unix", Addr: "/run/app.sock"}},
		{"a=unix:///run/a b.sock", Address{Name: "a", Network: "unix", Addr: "/run/a b.sock"}},
		{"unix:///run/x=y/app", Address{Name: "app", Network: "unix", Addr: "/run/x=y/app"}},
		{"unix://@app/web", Address{Name: "web", Network: "unix", Addr: "@app/web"}},
		{"unixgram:///run/log?mode=0622", Address{Name: "log", Network: "unixgram", Addr: "/run/log", Mode: 0o622}},
		{
			"web=unix:///run/app.sock?mode=0660&owner=www-data&group=33&backlog=5",
			Address{Name: "web", Network: "unix", Addr: "/run/app.sock", Mode: 0o660, Owner: "www-data", Group: "33", Backlog: 5},
		},
		{"fd://app.socket", Address{Name: "app.socket", Network: "fd", Addr: "app.socket"}},
		{"web=fd://3", Address{Name: "web", Network: "fd", Addr: "3"}},
		{"web=fd://a=b", Address{Name: "web", Network: "fd", Addr: "a=b"}},
		{"unix:///" + strings.Repeat("p", sunPath-2), Address{
			Name: strings.Repeat("p", sunPath-2), Network: "unix", Addr: "/" + strings.Repeat("p", sunPath-2),
		}},
	}
	for _, test := range tests {
		t.Run(test.written, func(t *testing.T) {
			test.want.Written = test.written
			got, err := ParseAddress(test.written)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

func TestParseAddressRefuses(t *testing.T) {
	tests := []struct{ written, reason string }{
		{"", "neither PORT nor HOST:PORT"},
		{"localhost", "neither PORT nor HOST:PORT"},
		{"::1:80", "neither PORT nor HOST:PORT"},
		{"[::1]", "neither PORT nor HOST:PORT"},
		{"65536", `port "65536"`},
		{":-1", `port "-1"`},
		{":http", `port "http"`},
		{":", `port ""`},
		{"a b:80", "neither an address nor a host name"},
		{"[localhost]:80", "neither an address nor a host name"},
		{"tcp6://127.0.0.1:80", "not an address of tcp6"},
		{"udp4://[::1]:53", "not an address of udp4"},
		{"http://:80", `unknown network "http"`},
		{"=80", `name ""`},
		{"we b=80", `name "we b"`},
		{"unix:///run/a b.sock", `name "a b.sock"`},
		{"/run/app.sock", "written unix:///run/app.sock"},
		{"unix://", "path is empty"},
		{"unix://@", "path is empty"},
		{"unix://run/app.sock", "absolute: write unix:///run/app.sock"},
		{"unix:///run/", "names a directory"},
		{"unix:///run/a\x00b", "NUL byte"},
		{"unix:///" + strings.Repeat("p", sunPath), "use a shorter one"},
		{"unix://@" + strings.Repeat("p", sunPath), "the kernel allows"},
		{":80?backlog", "backlog \"\""},
		{":80?backlog=0", "from 1 to 2147483647"},
		{":80?backlog=99999999999", "from 1 to 2147483647"},
		{":80?backlog=1&backlog=2", "given twice"},
		{":80?reuseport=true", `unknown option "reuseport"`},
		{":80?mode=0660", `"mode" cannot be used with tcp://:80`},
		{":80?owner=root", `"owner" cannot be used with`},
		{":80?steer=maybe", "neither true nor false"},
		{"udp://:80?steer=true", `"steer" cannot be used with`},
		{"unix://@a?steer=true", `"steer" cannot be used with`},
		{"unixgram:///a?steer=true", `"steer" cannot be used with`},
		{":80?v6only=maybe", "not true or false"},
		{":80?v6only=true;", "OPTION=VALUE"},
		{"0.0.0.0:80?v6only=true", `"v6only" cannot be used with`},
		{"tcp4://:80?v6only=true", `"v6only" cannot be used with`},
		{"udp://:53?backlog=5", `"backlog" cannot be used with`},
		{"unix:///a?v6only=true", `"v6only" cannot be used with`},
		{"unix:///a?mode=8", "octal"},
		{"unix:///a?mode=0", "octal"},
		{"unix:///a?mode=01777", "octal"},
		{"unix:///a?group=", `"group" is empty`},
		{"unix://@a?mode=0660", `"mode" cannot be used with`},
		{"fd://", "number of a socket that was passed"},
		{"fd://:80", "number of a socket that was passed"},
		{"fd://my web", `name "my web"`},
		{"fd://web?steer=true", `"steer" cannot be used with fd://web: the socket exists already`},
		{"fd://web?backlog=5", "Backlog="},
		{"fd://web?freebind=true", "the socket exists already"},
		{":80?nodelay=maybe", "neither true nor false"},
		{":80?keepalive=true&keepalive-time=60", "as in 30s"},
		{":80?keepalive-time=1m", "without keepalive=true"},
		{":80?keepalive-time=1m&keepalive=false", "without keepalive=true"},
		{":80?keepalive=true&keepalive-time=1500ms", "in steps of 1s"},
		{":80?keepalive=true&keepalive-probes=128", "from 1 to 127"},
		{":80?receive-buffer=2G", "number of bytes"},
		{":80?send-buffer=0", "number of bytes"},
		{":80?mark=-1", "from 0 to"},
		{":80?priority=5", `unknown option "priority"`},
		{":80?steer=true&defer-accept=5s", "cannot be combined with steer=true"},
		{"udp://:53?nodelay=true", `"nodelay" cannot be used with`},
		{"unix:///a?send-buffer=4K", `"send-buffer" cannot be used with`},
		{"unix:///a?mark=1", `"mark" cannot be used with`},
	}
	for _, test := range tests {
		t.Run(test.written, func(t *testing.T) {
			got, err := ParseAddress(test.written)
			if err == nil {
				t.Fatalf("taken as %+v", got)
			}
			if !strings.Contains(err.Error(), test.reason) || !strings.Contains(err.Error(), addressForms) {
				t.Errorf("%v\ndoes not say %s and the accepted forms", err, test.reason)
			}
		})
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, seed := range []string{
		"8080", "web=[::1%lo]:0?v6only=true", "unix:///run/a?mode=0660&owner=a&group=1", "unixgram://@x", "udp4://1.2.3.4:5?", "fd://web",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, written string) {
		a, err := ParseAddress(written)
		if err != nil {
			return
		}
		if !validName(a.Name) || a.Addr == "" || a.Written != written {
			t.Fatalf("%q became %+v", written, a)
		}
		if a.Unix() && len(a.Addr) > sunPath {
			t.Fatalf("%q became a path of %d bytes", written, len(a.Addr))
		}
		if a.Unix() {
			return
		}
		again, err := ParseAddress(a.Name + "=" + a.Network + "://" + a.Addr)
		if err != nil || again.Addr != a.Addr || again.Network != a.Network {
			t.Fatalf("%+v read again is %+v, %v", a, again, err)
		}
	})
}
