package compare

import (
	"slices"
	"strings"
	"time"
)

// tool is one way to replace a running server.
type tool struct {
	name    string
	about   string   // a line of the page
	endings []ending // of the servers that it is measured with
	faults  []fault  // that a version can have under it
	needs   []need
	prepare func() error                      // what it needs beyond its programs; it says why the tool cannot run here
	bare    func(p *place, s server) []string // starts the same server alone
	start   func(p *place, s server) (running, error)
}

// running is a tool with a server that answers on the address of its place.
type running interface {
	// deploy puts a version where the next start of the server finds it.
	deploy(version) error
	// upgrade asks for the replacement as the tool's manual says. It may return before that is over.
	upgrade() error
	// supervisor is the process that stays, by its number here; 0 if there is none.
	supervisor() int
	// stop ends what needs more than KILL.
	stop()
}

// server is what runs under a tool.
type server struct {
	end   ending
	delay time.Duration // what its start takes beyond that of the program
}

// ending is what a server does when it is told to stop.
type ending string

const (
	byDrain    ending = "drain"    // it tells its clients to leave, and ends when they have
	byShutdown ending = "shutdown" // it finishes requests, and closes idle connections at once
	byDying    ending = "die"      // it does not know the signal
	byItself   ending = "own"      // the server is the tool
)

var everyEnding = []ending{byDrain, byShutdown, byDying}

// fault is what is wrong with a version.
type fault string

const (
	none    fault = ""
	crashes fault = "crash" // at its start
	isNever fault = "never" // ready
	hangs   fault = "hang"  // when it has to end
)

var everyFault = []fault{crashes, isNever, hangs}

type version struct {
	number int
	fault  fault
}

// need is a program, and where it is from.
type need struct{ program, debian string }

// granted is what a server gets for its last requests, from itself or from a tool that has such an option; and what a new one gets
// until it serves.
const (
	granted   = 2 * time.Second
	readyTime = 3 * time.Second
)

func tools() []tool {
	return slices.Concat(graceTools(), []tool{
		startServer(), systemdSocket(), tableflipTool(), nginxReload(), nginxBinary(), haproxyReload(), gunicornHUP(),
		pm2Reload(), nodeCluster(), reusePort(), killAndStart(),
	})
}

func names(of []tool) string {
	var all []string
	for _, t := range of {
		all = append(all, hyphened(t.name))
	}
	return strings.Join(all, ", ")
}
