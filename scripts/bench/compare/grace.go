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
	captured := func(*place) []string { return nil }
	return []tool{
		graceTool("grace held", "`grace run --listen`, all other flags as they are by default: with `--farewell` where grace has the rights", held),
		graceTool("grace captured", "`grace run -- ./app`, as it is by default: with `--farewell` where grace has the rights", captured),
		graceTool("grace held without farewell", "`grace run --listen --farewell 0s`, as it is without rights", held, "--farewell", "0s"),
		graceTool("grace captured without farewell", "`grace run --farewell 0s`, as it is without these rights", captured, "--farewell", "0s"),
	}
}

func graceTool(name, about string, listen func(*place) []string, flags ...string) tool {
	return tool{
		name: name, about: about, endings: everyEnding, faults: everyFault, bare: bareApp,
		start: func(p *place, s server) (running, error) {
			command := slices.Concat([]string{p.grace, "run", "--name", filepath.Base(p.dir) + fmt.Sprint(os.Getpid()), "--adopt", "never",
				"--drain-timeout", emptyTime, "--ready-timeout", readyTime.String()}, flags, listen(p), []string{"--"}, p.goApp(s))
			return p.startSignalled(syscall.SIGHUP, command)
		},
	}
}

func bareApp(p *place, s server) []string { return p.goApp(s) }
