package chaos

import (
	"slices"
	"strings"
)

// kind is a way in which an app has its socket.
type kind struct {
	index   int
	name    string
	network string
	address func(g *grace) string
	flags   func(g *grace) []string // of grace
	app     func(g *grace) []string // of the app
	own     bool                    // each generation has sockets of its own
	nobody  bool                    // run as a user without rights, where limits count
}

func kinds() []kind {
	unixPath := func(g *grace) string { return g.dir + "/s" }
	port := func(g *grace) string { return g.port }
	none := func(*grace) []string { return nil }
	all := []kind{
		{0, "held", "tcp", port, func(g *grace) []string { return []string{"--listen", "web=" + g.port} }, none, false, true},
		{1, "captured", "tcp", port, none, func(g *grace) []string { return []string{"-addr", g.port} }, true, true},
		{2, "steered", "tcp", port, func(g *grace) []string {
			return []string{"--listen", "web=" + g.port + "?steer=true", "--instances", "2"}
		}, none, true, false},
		{3, "unix", "unix", unixPath, func(g *grace) []string { return []string{"--listen", "web=unix://" + g.dir + "/s"} }, none, false, false},
		{4, "captured-unix", "unix", unixPath, func(g *grace) []string { return []string{"--capture-unix", g.dir + "/s"} }, func(g *grace) []string {
			return []string{"-network", "unix", "-addr", g.dir + "/s", "-remove"}
		}, true, false},
	}
	if *sockets == "" {
		return all
	}
	names := strings.Split(*sockets, ",")
	return slices.DeleteFunc(all, func(k kind) bool { return !slices.Contains(names, k.name) })
}
