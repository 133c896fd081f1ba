package compare

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// emptyTime is short, so that a round sees how the old generation ends.
const emptyTime = "6s"

func graceTools() []tool {
	held := func(p *place) []string { return []string{"--listen", p.address} }
	steered := func(p *place) []string { return []string{"--listen", p.address + "?steer=true"} }
	captured := func(*place) []string { return nil }
	return []tool{
		graceTool("grace held", "`grace run --listen ADDRESS -- ./app`, HUP; as root, so with `--farewell`", everyEnding, held),
		graceTool("grace held steered", "the same with `--listen ADDRESS?steer=true`: the old generation gets no new connections from the moment on in which the new one serves", unprepared, steered),
		graceTool("grace captured", "`grace run -- ./app`, HUP; as root, so with `--farewell`", everyEnding, captured),
		graceTool("grace held without farewell", "`grace run --listen ADDRESS --farewell 0s`, as it is without rights", unprepared, held, "--farewell", "0s"),
		graceTool("grace captured without farewell", "`grace run --farewell 0s`, as it is without rights", unprepared, captured, "--farewell", "0s"),
	}
}

// unprepared are the apps whose clients do not learn by themselves that the app ends.
var unprepared = []ending{byShutdown, byDying}

func graceTool(name, about string, endings []ending, listen func(*place) []string, flags ...string) tool {
	return tool{
		name: name, about: about, endings: endings, faults: everyFault, bare: bareApp,
		start: func(p *place, s server) (running, error) {
			command := slices.Concat([]string{p.grace, "run", "--name", filepath.Base(p.dir) + fmt.Sprint(os.Getpid()), "--adopt", "never",
				"--drain-timeout", emptyTime, "--ready-timeout", readyTime.String()}, flags, listen(p), []string{"--"}, p.goApp(s))
			return p.startSignalled(syscall.SIGHUP, command)
		},
	}
}

func bareApp(p *place, s server) []string { return p.goApp(s) }
