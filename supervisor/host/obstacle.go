package host

import (
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/handoff/sockdiag"
	"github.com/gracerun/grace/supervisor/machine"
)

// obstacleHolds is how long an obstacle is told of after it was seen last: a wrapper whose server has ended goes on for a
// moment, in which there is nothing to see, and ends then for the same reason.
const obstacleHolds = 2 * time.Second

// watchObstacles tells of what can be seen to keep the instance from serving, until it is ready or has ended. A look
// costs, so that each comes a twentieth of the wait later than the one before.
func (v *readinessCheck) watchObstacles() {
	last, seen := "", time.Time{}
	for v.pause(max(time.Since(v.begun)/20, 50*time.Millisecond)) == nil {
		now, alive := v.obstacle()
		if now != "" {
			seen = time.Now()
		}
		if alive && now != last && (now != "" || time.Since(seen) >= obstacleHolds) {
			last = now
			v.apps.Post(machine.Obstructed{Instance: v.instance, Why: now})
		}
	}
}

// obstacle tells nothing of an instance whose main process has ended meanwhile: what ends has no descriptors.
func (v *readinessCheck) obstacle() (why string, alive bool) {
	main := v.pid()
	pids, err := v.apps.Reaper.Tree(main)
	if err != nil {
		return "", false
	}
	if pid, by := childproc.Stopped(pids); pid != 0 {
		return stopped(pid, by), true
	}
	for _, look := range []func([]int) string{v.dispossessed, v.locked, v.ownPort} {
		if why = look(pids); why != "" {
			break
		}
	}
	return why, childproc.Living(main)
}

func (v *readinessCheck) locked(pids []int) string { return v.locks.obstacle(v, pids) }

// ownPortAfter spares the start of most apps a look: one that takes the sockets it was given has mostly done so by then.
const ownPortAfter = time.Second

// ownPort tells of an app that binds its own, as if it had been given no socket.
func (v *readinessCheck) ownPort(pids []int) string {
	if len(v.app.sockets) == 0 || time.Since(v.begun) < ownPortAfter {
		return ""
	}
	listening, err := sockdiag.Listening(pids)
	if err != nil {
		return ""
	}
	for _, l := range v.app.sockets {
		delete(listening, l.Inode())
	}
	if len(listening) == 0 {
		return ""
	}
	return fmt.Sprintf("the app listens on %s with a socket of its own (leave --listen out if that is where it is to serve, or have it take the socket: --dialect, {fd})",
		addressesOf(listening))
}

// stopped names the reason of a stop as far as the signal tells it (General Terminal Interface in POSIX): nobody is in
// the foreground of grace's terminal but grace.
func stopped(pid int, by syscall.Signal) string {
	is := fmt.Sprintf("process %d (%s) of the app is stopped", pid, childproc.Called(pid))
	switch by {
	case syscall.SIGTTIN:
		return is + " by SIGTTIN because it reads from the terminal (let it read a pass phrase from a file, or start grace without a terminal)"
	case syscall.SIGTTOU:
		return is + " by SIGTTOU because it writes to the terminal or changes its settings (stty -tostop, or start grace without a terminal)"
	case 0:
		return is + fmt.Sprintf(" (state T; kill -CONT %d continues it)", pid)
	}
	return is + fmt.Sprintf(" by signal %d (%s; kill -CONT %d continues it)", int(by), by, pid)
}

// dispossessed is for who was started by something that closes the sockets it was given itself. Which process is to
// serve nobody can see, so it is said only if none can that has no children: a wrapper may have the sockets open
// still, and waits.
func (v *readinessCheck) dispossessed(pids []int) string {
	var sockets []uint64
	var names []string
	for _, l := range v.app.sockets {
		sockets, names = append(sockets, l.Inode()), append(names, l.Name())
	}
	if len(sockets) == 0 {
		return ""
	}
	last := 0
	for _, pid := range pids {
		below, err := childproc.Tree(pid)
		if err != nil || len(below) > 1 {
			continue
		}
		if has, err := hasAny(pid, sockets); has || err != nil {
			return ""
		}
		last = pid
	}
	if last == 0 || !childproc.Living(last) {
		return ""
	}
	return fmt.Sprintf("process %d (%s) of the app does not have the --listen sockets (%s): it, or the program that started it, has closed them, as sudo, npm and Python's subprocess do (start the server without such a wrapper, or leave --listen out)",
		last, childproc.Called(last), strings.Join(names, ", "))
}

func hasAny(pid int, sockets []uint64) (bool, error) {
	missing, err := childproc.Unowned(sockets, func() ([]int, error) { return []int{pid}, nil })
	return err == nil && len(missing) < len(sockets), err
}
