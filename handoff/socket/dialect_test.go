package socket

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

// known makes listeners of which only what dialects tell is real.
func known(t *testing.T, bound map[string]string, order ...string) []*Listener {
	t.Helper()
	var listeners []*Listener
	for i, written := range order {
		a, err := ParseAddress(written)
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, &Listener{address: a, fd: 100 + i, bound: bound[written]})
	}
	return listeners
}

func TestDialects(t *testing.T) {
	bound := map[string]string{
		"web=8080":            "[::]:8080",
		"127.0.0.1:0":         "127.0.0.1:41234",
		"[fe80::1%eth0]:80":   "[fe80::1%eth0]:80",
		"dns=udp4://:53":      "0.0.0.0:53",
		"unix:///run/a.sock":  "/run/a.sock",
		"unixgram:///run/log": "/run/log",
		"unix://@app":         "@app",
	}
	all := []string{
		"web=8080", "127.0.0.1:0", "[fe80::1%eth0]:80", "dns=udp4://:53", "unix:///run/a.sock", "unixgram:///run/log", "unix://@app",
	}
	tests := []struct {
		dialects string
		sockets  []string
		env      []string
		pidVars  []string
		files    []int
		stdin    int
	}{
		{
			"systemd", all,
			[]string{"LISTEN_FDS=7", "LISTEN_FDNAMES=web:0:80:dns:a.sock:log:app"},
			[]string{"LISTEN_PID"}, []int{100, 101, 102, 103, 104, 105, 106}, -1,
		},
		{
			"server-starter", all,
			[]string{
				"SERVER_STARTER_PORT=[::]:8080=3;127.0.0.1:41234=4;[fe80::1%eth0]:80=5;u0.0.0.0:53=6;/run/a.sock=7;/run/log=8;@app=9",
				"SERVER_STARTER_GENERATION=5",
			},
			nil, []int{100, 101, 102, 103, 104, 105, 106}, -1,
		},
		{
			"einhorn", []string{"web=8080", "127.0.0.1:0", "unix:///run/a.sock"},
			[]string{
				"EINHORN_MASTER_PID=42", "EINHORN_FD_COUNT=3", "EINHORN_FD_0=3", "EINHORN_FD_FAMILY_0=AF_INET6",
				"EINHORN_FD_1=4", "EINHORN_FD_FAMILY_1=AF_INET", "EINHORN_FD_2=5", "EINHORN_FD_FAMILY_2=AF_UNIX",
			},
			nil, []int{100, 101, 102}, -1,
		},
		{
			"php-fpm", []string{"web=8080", "127.0.0.1:0", "[fe80::1%eth0]:80", "unix:///run/a.sock"},
			[]string{"FPM_SOCKETS=:::8080=3,127.0.0.1:41234=4,fe80::1:80=5,/run/a.sock=6"},
			nil, []int{100, 101, 102, 103}, -1,
		},
		{"stdin", []string{"web=8080"}, nil, nil, nil, 100},
		{"stdin,php-fpm", []string{"web=8080"}, []string{"FPM_SOCKETS=:::8080=3"}, nil, []int{100}, 100},
		{"none", []string{"web=8080"}, nil, nil, []int{100}, -1},
		{
			"", []string{"web=8080"},
			[]string{"LISTEN_FDS=1", "LISTEN_FDNAMES=web", "SERVER_STARTER_PORT=[::]:8080=3", "SERVER_STARTER_GENERATION=5"},
			[]string{"LISTEN_PID"}, []int{100}, -1,
		},
		{"systemd,nginx,php-fpm", nil, nil, nil, nil, -1},
	}
	for _, test := range tests {
		t.Run(test.dialects, func(t *testing.T) {
			d, err := ParseDialects(slices.DeleteFunc(strings.Split(test.dialects, ","), func(s string) bool { return s == "" }))
			if err != nil {
				t.Fatal(err)
			}
			g, err := d.Plan(PlanRequest{Listeners: known(t, bound, test.sockets...), Generation: 5, Parent: 42})
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(g.Env, test.env) || !slices.Equal(g.PIDVars, test.pidVars) {
				t.Errorf("env  %q %q\nwant %q %q", g.Env, g.PIDVars, test.env, test.pidVars)
			}
			if !slices.Equal(g.Files, test.files) || g.Stdin != test.stdin {
				t.Errorf("files %v, stdin %d; want %v, %d", g.Files, g.Stdin, test.files, test.stdin)
			}
			if g.ready != nil || g.Predecessor != nil || g.Close() != nil || g.Close() != nil {
				t.Error("pipes from nowhere")
			}
		})
	}
}

func TestPlanTellsTheSockets(t *testing.T) {
	listeners := known(t, map[string]string{"web=8080": "0.0.0.0:8080"}, "web=8080", "unix:///run/a.sock")
	g, err := Dialects(nil).Plan(PlanRequest{Listeners: listeners})
	if err != nil {
		t.Fatal(err)
	}
	want := []heldSocket{{"web", "tcp", ":8080", "0.0.0.0:8080", 3}, {"a.sock", "unix", "/run/a.sock", "", 4}}
	if !reflect.DeepEqual(g.sockets, want) {
		t.Errorf("got %+v", g.sockets)
	}
}

func TestPlanRefuses(t *testing.T) {
	bound := map[string]string{"a=unix:///run/a;b": "/run/a;b", "a=unix:///run/a,b": "/run/a,b", "a=unix:///run/a=b": "/run/a=b", "1": "[::]:1", "2": "[::]:2"}
	for dialect, test := range map[string]struct {
		sockets []string
		reason  string
	}{
		"server-starter": {[]string{"a=unix:///run/a;b"}, "/run/a;b"},
		"php-fpm":        {[]string{"a=unix:///run/a,b"}, "/run/a,b"},
		"stdin":          {[]string{"1", "2"}, "2 sockets"},
	} {
		d, err := ParseDialects([]string{dialect})
		if err != nil {
			t.Fatal(err)
		}
		if g, err := d.Plan(PlanRequest{Listeners: known(t, bound, test.sockets...)}); err == nil || !strings.Contains(err.Error(), test.reason) {
			t.Errorf("%s with %v: %+v, %v", dialect, test.sockets, g, err)
		}
		if _, err := d.Plan(PlanRequest{Listeners: known(t, bound, "1")}); err != nil {
			t.Errorf("%s: %v", dialect, err)
		}
	}
	if _, err := (Dialects{dialects[6]}).Plan(PlanRequest{}); err == nil {
		t.Error("stdin without a socket")
	}
}

func TestParseDialects(t *testing.T) {
	for names, reason := range map[string]string{
		"upstart":           "use one or more of systemd, server-starter, einhorn, nginx, php-fpm, tableflip, stdin, or none alone",
		"none,systemd":      `dialect "none"`,
		"":                  `dialect ""`,
		"nginx,nginx":       "nginx twice",
		"systemd,tableflip": "begin at descriptor 3 in one, at 5 in the other",
		"tableflip,systemd": "together",
	} {
		if d, err := ParseDialects(strings.Split(names, ",")); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v, %v", names, d, err)
		}
	}
	for _, names := range []string{"none", "systemd,server-starter,einhorn,nginx,php-fpm,stdin", "tableflip,server-starter,einhorn"} {
		if _, err := ParseDialects(strings.Split(names, ",")); err != nil {
			t.Errorf("%s: %v", names, err)
		}
	}
}

func TestCommandIsExpanded(t *testing.T) {
	tests := []struct {
		dialect, sockets, command, want string
	}{
		{"none", "web=1", "app --fd {fd}", "app --fd 3"},
		{"none", "web=1 api=2", "app --fd={fd:web},fd@{fd:api}", "app --fd=3,fd@4"},
		{"none", "web=1", "sh -c ${fd}${fd:web}{fd:web}", "sh -c ${fd}${fd:web}3"},
		{"none", "web=1", "app {fdx} {FD} {fd {fd}}", "app {fdx} {FD} {fd 3}"},
		{"none", "", "app {} $fd", "app {} $fd"},
		{"systemd", "web=1 api=2", "{fd:api}", "4"},
		{"tableflip", "web=1 api=2", "app {fd:web} {fd:api}", "app 5 6"},
		{"stdin", "web=1", "app {fd}", "app 0"},
		{"none", "web=1 api=2", "app {fd}", "{fd} needs exactly one --listen, and there are 2: write {fd:NAME} with one of web, api"},
		{"none", "", "app {fd}", "there are 0"},
		{"none", "web=1 api=2", "app {fd:wbe}", "{fd:wbe} names no socket: the names are web, api"},
		{"none", "web=1", "app {fd:}", "{fd:} names no socket"},
		{"none", "web=1 web=2", "app {fd:web}", "fits several sockets"},
	}
	for _, test := range tests {
		t.Run(test.dialect+" "+test.command, func(t *testing.T) {
			d, err := ParseDialects([]string{test.dialect})
			if err != nil {
				t.Fatal(err)
			}
			command := strings.Fields(test.command)
			g, err := d.Plan(PlanRequest{Listeners: known(t, nil, strings.Fields(test.sockets)...), Command: command})
			if err != nil {
				if !strings.Contains(err.Error(), test.want) {
					t.Error(err)
				}
				return
			}
			defer g.Close()
			if got := strings.Join(g.Command, " "); got != test.want {
				t.Errorf("got %s, not %s", got, test.want)
			}
			if strings.Join(command, " ") != test.command {
				t.Error("the given command was changed")
			}
		})
	}
}
