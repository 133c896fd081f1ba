package compare

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// nginx is a proxy here: its backend stays. Whoever upgrades it by a signal replaces its workers; the other way replaces all of it.
type nginx struct {
	*place
	daemon string // on or off
	master int    // the current one
}

var needsNginx = []need{{"nginx", "nginx-light"}}

func nginxReload() tool {
	return tool{
		name: "nginx reload", about: "nginx as a proxy of an app that stays, HUP: new workers, the same master",
		endings: []ending{byItself}, faults: []fault{crashes}, needs: needsNginx, bare: bareNginx,
		start: func(p *place, _ server) (running, error) {
			n := nginxReloaded{&nginx{place: p, daemon: "off"}}
			c, err := p.run(n.command())
			if err != nil {
				return nil, err
			}
			n.master = c.Process.Pid
			return n, nil
		},
	}
}

func nginxBinary() tool {
	return tool{
		name: "nginx binary upgrade", about: "the same, USR2, then WINCH and QUIT for the old master when the new one serves",
		endings: []ending{byItself}, faults: []fault{crashes}, needs: needsNginx, bare: bareNginx,
		start: func(p *place, _ server) (running, error) {
			n := nginxReplaced{&nginx{place: p, daemon: "on"}}
			if err := p.ask(n.command()); err != nil {
				return nil, err
			}
			var err error
			n.master, err = n.awaitMaster(0, "nginx.pid")
			return n, err
		},
	}
}

// bareNginx has the whole path of the program, by which nginx starts its successor.
func bareNginx(p *place, _ server) []string { return (&nginx{place: p, daemon: "off"}).command() }

func (n *nginx) command() []string {
	if err := n.deploy(version{number: 1}); err != nil {
		fmt.Fprintln(n.log, err) // nginx says then that it has no configuration
	}
	program, err := exec.LookPath("nginx")
	if err != nil {
		program = "nginx" // install has found it, though
	}
	return []string{program, "-p", n.dir, "-e", n.path("log"), "-c", n.path("nginx.conf")}
}

// deploy writes a configuration. One that crashes has an error that only the start shows.
func (n *nginx) deploy(v version) error {
	broken := ""
	if v.fault == crashes {
		broken = "this_is_no_directive;"
	}
	return n.install("nginx.conf", "DAEMON", n.daemon, "VERSION", strconv.Itoa(v.number), "FAULT", broken)
}

func (n *nginx) supervisor() int { return n.master }
func (n *nginx) stop()           {}

type nginxReloaded struct{ *nginx }

func (n nginxReloaded) upgrade() error { return syscall.Kill(n.master, syscall.SIGHUP) }

// nginxReplaced is a daemon: nginx does not replace its binary as long as the parent lives that has started it.
type nginxReplaced struct{ *nginx }

// upgrade does what the manual says, "Upgrading Executable on the Fly".
func (n nginxReplaced) upgrade() error {
	old := n.master
	if err := syscall.Kill(old, syscall.SIGUSR2); err != nil {
		return err
	}
	master, err := n.awaitMaster(old, "nginx.pid.oldbin")
	if err != nil {
		return err
	}
	isNew := func(a answer) bool {
		s, err := statOf(a.pid)
		return err == nil && s.parent == master
	}
	if _, err := await(n.address, isNew, readyTime, func() bool { return !alive(master) }); err != nil {
		return fmt.Errorf("the new nginx does not serve: %w", err)
	}
	n.master = master
	if err := syscall.Kill(old, syscall.SIGWINCH); err != nil {
		return err
	}
	return syscall.Kill(old, syscall.SIGQUIT)
}

// awaitMaster waits for a file that a new one makes, and for its number.
func (n nginxReplaced) awaitMaster(old int, file string) (int, error) {
	for deadline := time.Now().Add(readyTime); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if _, err := os.Stat(n.path(file)); err != nil {
			continue
		}
		if pid, err := n.readPid("nginx.pid"); err == nil && pid != old {
			return pid, nil
		}
	}
	return 0, errTime
}
