package compare

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gracerun/grace/internal/cgroup"
)

// systemd is one of its own, as PID 1 of its own namespaces, run from the machine's /usr. It has the machine's network, and nothing
// else that it could change.
type systemd struct {
	*place
	init   *process
	cgroup string
}

func systemdSocket() tool {
	return tool{
		name: "systemd restart", about: "socket activation in a systemd of the benchmark's own, `systemctl restart`: the socket stays, and clients wait in its queue",
		endings: everyEnding, faults: everyFault, prepare: mayBoot, bare: bareApp,
		needs: []need{{"/usr/lib/systemd/systemd", "systemd"}, {"systemctl", "systemd"}, {"nsenter", "util-linux"}, {"setpriv", "util-linux"}, {"pivot_root", "mount"}},
		start: startSystemd,
	}
}

func mayBoot() error {
	if os.Getuid() != 0 {
		return errors.New("only root can boot a systemd")
	}
	_, err := cgroup.Own()
	return err
}

// bootScript makes the root folder $1, in which the folders $2 and $3 are where they are outside too, and which has the units of
// $2/units. /proc/sys is read-only and the capabilities are those of a container, because systemd sets up all of the machine that it
// is given.
const bootScript = `set -e
mount --make-rprivate /
mkdir -p "$1"
mount -t tmpfs tmpfs "$1"
cd "$1"
mkdir -p dev/shm etc/systemd/system host proc run sys tmp usr var ".$2" ".$3"
mount --bind /usr usr
mount -o remount,bind,ro usr
mount --bind "$2" ".$2"
mount --bind "$3" ".$3"
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
echo 55555555555555555555555555555555 >etc/machine-id
for unit in basic.target local-fs.target multi-user.target paths.target shutdown.target slices.target sockets.target \
	swap.target sysinit.target timers.target umount.target; do
	ln -s /usr/lib/systemd/system/$unit etc/systemd/system/$unit
done
cp "$2"/units/* etc/systemd/system
pivot_root . host
umount -l host
exec env -i container=box PATH=/usr/bin:/usr/sbin SYSTEMD_UNIT_PATH=` + unitPath + ` \
	setpriv --bounding-set -audit_control,-audit_write,-mknod,-net_admin,-sys_boot,-sys_module,-sys_time,-syslog \
	/usr/lib/systemd/systemd --system --unit=multi-user.target --log-target=console --show-status=no
`

const unitPath = "/etc/systemd/system:/run/systemd/system"

const socketUnit = "[Socket]\nListenStream=%s\n"

// serviceUnit has no limit of starts within a time: the case with eight upgrades back to back would meet it.
const serviceUnit = `[Unit]
StartLimitIntervalSec=0
[Service]
Type=exec
ExecStart=%s
Restart=on-failure
TimeoutStopSec=3
StandardOutput=null
StandardError=null
`

func startSystemd(p *place, s server) (running, error) {
	if err := os.Mkdir(p.path("units"), 0o755); err != nil {
		return nil, err
	}
	err := errors.Join(p.write("units/app.socket", fmt.Sprintf(socketUnit, p.address)),
		p.write("units/app.service", fmt.Sprintf(serviceUnit, strings.Join(p.goApp(s), " "))))
	if err != nil {
		return nil, err
	}
	b := &systemd{place: p}
	if err := b.boot(); err != nil {
		b.stop()
		return nil, err
	}
	return b, nil
}

func (b *systemd) boot() (err error) {
	if b.cgroup, err = makeCgroup(); err != nil {
		return err
	}
	if b.init, err = b.startInit(); err != nil {
		return err
	}
	if err := b.awaitBoot(); err != nil {
		return err
	}
	return b.do("systemctl", "start", "app.socket", "app.service")
}

// startInit keeps its thread, because Pdeathsig looks at that (prctl(2)).
func (b *systemd) startInit() (*process, error) {
	runtime.LockOSThread()
	cgroup, err := os.Open(b.cgroup)
	if err != nil {
		return nil, err
	}
	defer cgroup.Close()
	c := &process{exec.Command("/bin/sh", "-c", bootScript, "sh", b.path("root"), b.dir, filepath.Dir(b.app)), make(chan struct{})}
	c.Stdout, c.Stderr = b.log, b.log
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWCGROUP,
		Pdeathsig:  syscall.SIGKILL, UseCgroupFD: true, CgroupFD: int(cgroup.Fd()), Setpgid: true,
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = c.Wait() // it is killed
		close(c.exited)
	}()
	return c, nil
}

// awaitBoot asks only what has left the machine's root: before that, the systemd that answers would be the machine's.
func (b *systemd) awaitBoot() error {
	for deadline := time.Now().Add(firstTime); time.Now().Before(deadline) && !b.init.ended(); time.Sleep(10 * time.Millisecond) {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", b.supervisor()))
		if err == nil && filepath.Base(exe) == "systemd" && b.do("systemctl", "is-system-running", "--wait") == nil {
			return nil
		}
	}
	return errors.New("systemd does not boot")
}

func (b *systemd) do(args ...string) error {
	command := append([]string{"nsenter", "-t", strconv.Itoa(b.supervisor()), "-a"}, args...)
	return b.ask(command, "SYSTEMD_UNIT_PATH="+unitPath)
}

func (b *systemd) upgrade() error  { return b.do("systemctl", "restart", "app.service") }
func (b *systemd) supervisor() int { return b.init.Process.Pid }

// stop kills PID 1, and with it the kernel kills all that is below it.
func (b *systemd) stop() {
	if b.init != nil {
		b.init.end(syscall.SIGKILL, granted)
	}
	removeCgroup(b.cgroup)
}

// makeCgroup makes one below that of this process.
func makeCgroup() (string, error) {
	own, err := cgroup.Own()
	if err != nil {
		return "", err
	}
	return os.MkdirTemp(own, "grace-compare-")
}

// removeCgroup tries again, because the kernel keeps a cgroup for a moment after its last process.
func removeCgroup(folder string) {
	for deadline := time.Now().Add(granted); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if err := cgroup.Remove(folder); err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
	}
}
