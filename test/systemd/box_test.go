package systemd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/internal/cgroup"
	"github.com/gracerun/grace/internal/requirement"
	"github.com/gracerun/grace/test/harness"
)

// box is a systemd as PID 1 of its own namespaces, run from the host's /usr, or from
// another one laid over it. It shares only the network, so that clients outside reach the apps inside.
type box struct {
	t      *testing.T
	cmd    *exec.Cmd
	cgroup string
	boot   bytes.Buffer  // what was said before systemd had a journal
	ended  chan struct{} // closed when PID 1 was reaped
}

// boxScript makes the root folder $1 of what the host has and of the files in $2. In
// $3 is what comes before the host's /usr.
// /proc/sys is read-only and the capabilities are those of a container, because
// systemd sets up all of the machine that it is given.
const boxScript = `set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
cd "$1"
mkdir -p dev/shm etc/systemd/system/sockets.target.wants etc/systemd/system/sysinit.target.wants host proc run sys tmp usr var
if [ "$3" ]; then
	mount -t overlay -o "ro,lowerdir=$3:/usr" overlay usr
else
	mount --bind /usr usr
	mount -o remount,bind,ro usr
fi
mount -t tmpfs tmpfs usr/local/bin
for folder in bin lib lib64 sbin; do ln -s usr/$folder $folder; done
ln -s ../run var/run
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs dev/shm
for device in null zero full random urandom tty; do
	touch dev/$device
	mount --bind /dev/$device dev/$device
done
cp /etc/passwd /etc/group etc
cd etc/systemd/system
for unit in basic.target local-fs.target multi-user.target paths.target shutdown.target slices.target sockets.target \
	swap.target sysinit.target timers.target umount.target \
	systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket; do
	ln -s /usr/lib/systemd/system/$unit $unit
done
ln -s ../systemd-journald.socket ../systemd-journald-dev-log.socket sockets.target.wants
ln -s ../systemd-journald.service sysinit.target.wants
cd "$1"
cp -rL "$2"/. .
pivot_root . host
umount -l host
exec env -i container=box PATH=/usr/bin:/usr/sbin SYSTEMD_UNIT_PATH=` + unitPath + ` \
	setpriv --bounding-set -audit_control,-audit_write,-mknod,-net_admin,-sys_boot,-sys_module,-sys_time,-syslog \
	/usr/lib/systemd/systemd --system --unit=multi-user.target --log-target=journal --show-status=no
`

// Units of the host's own packages are not on it.
const unitPath = "/etc/systemd/system:/run/systemd/system"

// bootBox starts a systemd that finds the files of the folder tree in its own /.
func bootBox(t *testing.T, tree string) *box { return bootBoxOf(t, "", tree) }

// bootBoxOf does so with the /usr of another systemd, or the host's for "".
func bootBoxOf(t *testing.T, usr, tree string) *box {
	t.Helper()
	requirement.Check(t, "systemd", mayBoot())
	harness.Write(t, filepath.Join(tree, "etc"), "machine-id", strings.Repeat("5", 32)+"\n", 0o444)
	harness.Write(t, filepath.Join(tree, "etc/systemd"), "journald.conf", "[Journal]\nStorage=volatile\nAudit=no\nReadKMsg=no\n", 0o444)
	b := &box{t: t, ended: make(chan struct{})}
	var err error
	b.cgroup, err = makeCgroup()
	requirement.Check(t, "systemd", err)
	t.Cleanup(func() { b.removeCgroup() })
	requirement.Check(t, "systemd", b.start(usr, tree))
	t.Cleanup(b.end)
	harness.Until(t, "systemd has booted", func() bool {
		select {
		case <-b.ended:
			requirement.Check(t, "systemd", fmt.Errorf("cannot boot: %s", &b.boot))
		default:
		}
		return b.booted()
	})
	return b
}

func mayBoot() error {
	if os.Getuid() != 0 {
		return errors.New("only root can boot one")
	}
	for _, program := range []string{"/usr/lib/systemd/systemd", "systemctl", "systemd-analyze", "journalctl", "nsenter", "setpriv", "pivot_root", "/bin/kill"} {
		if _, err := exec.LookPath(program); err != nil {
			return err
		}
	}
	return nil
}

const cgroupPrefix = "grace-test-box-"

// makeCgroup makes one below our own, and removes those of tests that were killed.
func makeCgroup() (string, error) {
	own, err := cgroup.Own()
	if err != nil {
		return "", err
	}
	stale, err := filepath.Glob(filepath.Join(own, cgroupPrefix+"*"))
	if err != nil {
		return "", err
	}
	for _, dir := range stale {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), cgroupPrefix), "-")
		if n, err := strconv.Atoi(pid); err == nil && syscall.Kill(n, 0) == syscall.ESRCH {
			cgroup.Remove(dir) // as far as it goes
		}
	}
	return os.MkdirTemp(own, fmt.Sprintf("%s%d-", cgroupPrefix, os.Getpid()))
}

// start locks the thread to the test for good: the box is to end with it, and
// Pdeathsig looks at the thread (prctl(2)).
func (b *box) start(usr, tree string) error {
	runtime.LockOSThread()
	cgroup, err := os.Open(b.cgroup)
	if err != nil {
		return err
	}
	defer cgroup.Close()
	b.cmd = exec.Command("/bin/sh", "-c", boxScript, "sh", b.t.TempDir(), tree, usr)
	b.cmd.Stdout, b.cmd.Stderr = &b.boot, &b.boot
	b.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWCGROUP,
		Pdeathsig:  syscall.SIGKILL, UseCgroupFD: true, CgroupFD: int(cgroup.Fd()),
	}
	if err := b.cmd.Start(); err != nil {
		return err
	}
	go func() {
		b.cmd.Wait() // it is killed, or said why it ended
		close(b.ended)
	}()
	return nil
}

// booted asks only what has left the host's root behind: before that, the
// systemd that answers would be the host's.
func (b *box) booted() bool {
	exe, err := os.Readlink(b.path("exe"))
	if err != nil || filepath.Base(exe) != "systemd" {
		return false
	}
	state, _ := b.command("systemctl", "is-system-running", "--wait").Output() // fails while it starts
	if strings.HasPrefix(string(state), "degraded") {
		b.t.Fatalf("the box is degraded:\n%s", b.do("systemctl", "list-units", "--failed"))
	}
	return string(state) == "running\n"
}

// end kills PID 1, and the kernel all that is below it.
func (b *box) end() {
	if err := b.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		b.t.Error(err)
	}
	<-b.ended
}

func (b *box) removeCgroup() {
	if err := cgroup.Remove(b.cgroup); err != nil {
		b.t.Errorf("a cgroup is left: %v", err)
	}
}

// path is a file of PID 1 in /proc; those below root are the box's own.
func (b *box) path(name string) string {
	return filepath.Join("/proc", strconv.Itoa(b.cmd.Process.Pid), name)
}

func (b *box) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	context.AfterFunc(b.t.Context(), cancel)
	c := exec.CommandContext(ctx, "nsenter", append([]string{"-t", strconv.Itoa(b.cmd.Process.Pid), "-a"}, args...)...)
	c.Env = []string{"PATH=/usr/bin:/usr/sbin", "SYSTEMD_UNIT_PATH=" + unitPath}
	return c
}

// do runs a command in the box and gives all that it printed.
func (b *box) do(args ...string) string {
	b.t.Helper()
	out, err := b.command(args...).CombinedOutput()
	if err != nil {
		b.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// property is what systemd knows of a unit.
func (b *box) property(unit, name string) string {
	b.t.Helper()
	return strings.TrimSpace(b.do("systemctl", "show", "--value", "--property", name, unit))
}

// follow reads a unit's journal as if it were the output of a grace process started here.
func (b *box) follow(unit string) *harness.Grace {
	b.t.Helper()
	journal := b.path("root/run/log/journal")
	s := harness.StartWith(b.t, func(c *exec.Cmd) {
		path, err := exec.LookPath("journalctl")
		if err != nil {
			b.t.Fatal(err)
		}
		c.Path, c.Args = path, []string{"journalctl", "--directory", journal, "--follow", "--no-tail", "--output", "cat", "--unit", unit}
	})
	b.t.Cleanup(func() {
		s.Signal(syscall.SIGTERM)
		s.Wait()
	})
	return s
}
