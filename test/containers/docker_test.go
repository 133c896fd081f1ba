package containers

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/cgroup"
	"github.com/gracerun/grace/internal/requirement"
	"github.com/gracerun/grace/test/harness"
)

// docker is a daemon of the test's own. It shares the network with the clients, and sets up none for its containers.
type docker struct {
	t      *testing.T
	dir    string
	log    bytes.Buffer
	ended  chan struct{} // closed when the daemon was reaped
	parent string        // of its containers' cgroups
}

func startDocker(t *testing.T) *docker {
	t.Helper()
	requirement.Check(t, "docker", mayDock())
	d := &docker{t: t, dir: t.TempDir(), ended: make(chan struct{}), parent: "/grace-test-" + rand.Text()}
	d.lendGo()
	runtime.LockOSThread() // for Pdeathsig, which looks at the thread (prctl(2))
	daemon := exec.Command("/bin/sh", "-c", `mount --make-rprivate / && mount -t proc proc /proc && exec dockerd "$@"`, "sh", "--host", d.host(), "--data-root", d.dir+"/data", "--exec-root", d.dir+"/exec", "--pidfile", d.dir+"/pid",
		"--cgroup-parent", d.parent, "--bridge", "none", "--iptables=false", "--ip-forward=false")
	daemon.Env = append(os.Environ(), "PATH="+d.dir+":"+os.Getenv("PATH")+":/usr/sbin:/sbin")
	daemon.Stdout, daemon.Stderr = &d.log, &d.log
	daemon.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	requirement.Check(t, "docker", daemon.Start())
	go func() {
		daemon.Wait() // it is told to end, or said why it did
		close(d.ended)
	}()
	t.Cleanup(func() { d.end(daemon.Process) })
	harness.Until(t, "docker answers", func() bool {
		select {
		case <-d.ended:
			requirement.Check(t, "docker", fmt.Errorf("cannot start: %s", &d.log))
		default:
		}
		return d.command("version").Run() == nil
	})
	return d
}

func mayDock() error {
	if os.Getuid() != 0 {
		return errors.New("only root can start a daemon")
	}
	for _, program := range []string{"docker", "/usr/sbin/dockerd", "/usr/sbin/runc", "/usr/bin/containerd"} {
		if _, err := exec.LookPath(program); err != nil {
			return err
		}
	}
	return nil
}

func (d *docker) host() string { return "unix://" + d.dir + "/socket" }

func (d *docker) command(args ...string) *exec.Cmd {
	c := exec.Command("docker", args...)
	c.Env = append(os.Environ(), "DOCKER_HOST="+d.host(), "DOCKER_CONFIG="+d.dir, "DOCKER_BUILDKIT=0") // the one builder that runs what lendGo changes
	return c
}

// do gives what a docker command printed to stdout.
func (d *docker) do(args ...string) string {
	d.t.Helper()
	out, err := d.command(args...).Output()
	if err != nil {
		var said []byte
		if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
			said = failed.Stderr
		}
		d.t.Fatalf("docker %s: %v: %s%s", strings.Join(args, " "), err, out, said)
	}
	return strings.TrimSpace(string(out))
}

func (d *docker) end(daemon *os.Process) {
	if err := daemon.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		d.t.Error(err)
	}
	<-d.ended
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		left, err := filepath.Glob(pattern + d.parent)
		for _, dir := range left {
			err = errors.Join(err, cgroup.Remove(dir))
		}
		if err != nil {
			d.t.Errorf("a cgroup is left: %v", err)
		}
	}
}

// standIn marks containers that lendGo is for.
const standIn = "GRACE_STANDS_IN_FOR_GOLANG"

// lendGo puts a runc before docker's that lends the machine's own Go, and what Go has built and downloaded before, to the
// containers of an image that stands in for golang's.
func (d *docker) lendGo() {
	where := strings.Fields(goEnv(d.t, "GOROOT", "GOMODCACHE", "GOCACHE"))
	var mounts []string
	for _, folder := range []string{"/usr", where[0], where[1]} {
		mounts = append(mounts, fmt.Sprintf(`{"destination":%q,"type":"bind","source":%q,"options":["rbind","ro"]}`, folder, folder))
	}
	mounts = append(mounts, fmt.Sprintf(`{"destination":%q,"type":"bind","source":%q,"options":["rbind"]}`, where[2], where[2]))
	harness.Write(d.t, d.dir, "runc", `#!/bin/sh
for word; do
	config=$previous/config.json
	if [ -e "$config" ] && grep -q `+standIn+` "$config"; then
		sed -i 's|"mounts":\[|&`+strings.Join(mounts, ",")+`,|' "$config"
	fi
	previous=$word
done
exec /usr/sbin/runc "$@"
`, 0o755)
}

func goEnv(t *testing.T, names ...string) string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"env"}, names...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// importGolang makes the image that the Dockerfile begins with.
func (d *docker) importGolang() {
	d.t.Helper()
	where := strings.Fields(goEnv(d.t, "GOROOT", "GOMODCACHE", "GOCACHE"))
	var root bytes.Buffer
	files := tar.NewWriter(&root)
	for _, dir := range []string{"bin", "lib", "lib64"} { // which lead to the machine's /usr
		d.add(files, tar.Header{Typeflag: tar.TypeSymlink, Name: dir, Linkname: "usr/" + dir}, nil)
	}
	d.add(files, tar.Header{Name: "etc/ssl/certs/ca-certificates.crt", Mode: 0o644}, []byte("nobody's\n"))
	d.add(files, tar.Header{Typeflag: tar.TypeDir, Name: "tmp", Mode: 0o1777}, nil)
	if err := files.Close(); err != nil {
		d.t.Fatal(err)
	}
	variables := fmt.Sprintf("ENV %s=1 PATH=%s/bin:/usr/bin GOMODCACHE=%s GOCACHE=%s GOPROXY=off GOFLAGS=-buildvcs=false", standIn, where[0], where[1], where[2])
	c := d.command("import", "--change", variables, "-", "golang:1.26")
	c.Stdin = &root
	if out, err := c.CombinedOutput(); err != nil {
		d.t.Fatalf("docker import: %v: %s", err, out)
	}
}

func (d *docker) add(files *tar.Writer, h tar.Header, text []byte) {
	d.t.Helper()
	h.Size = int64(len(text))
	if err := files.WriteHeader(&h); err != nil {
		d.t.Fatal(err)
	}
	if _, err := files.Write(text); err != nil {
		d.t.Fatal(err)
	}
}

// run starts a container of the image, whose output is its log, and which ends with its status.
func (d *docker) run(t *testing.T, name string, flags []string, arguments ...string) *harness.Grace {
	t.Helper()
	s := harness.StartWith(t, func(cmd *exec.Cmd) {
		all := append([]string{"run", "--rm", "--name", name, "--env", "GRACE_LOG_FORMAT=json"}, flags...)
		c := d.command(append(append(all, "app"), arguments...)...)
		cmd.Path, cmd.Args, cmd.Env = c.Path, c.Args, c.Env
	})
	s.Contained = true
	return s
}

// The Dockerfile is built and run as it is, but on a golang image that the machine's own Go stands in for: none can be
// downloaded in a test. What is not seen here is that the real one has what the stand-in has.
func TestDockerfile(t *testing.T) {
	t.Parallel()
	d := startDocker(t)
	d.importGolang()
	d.do("build", "--file", harness.Source(t, "docs/containers/Dockerfile"), "--tag", "app", harness.Source(t, "."))
	t.Run("as it is", func(t *testing.T) {
		s := d.run(t, "plain", []string{"--read-only", "--network", "none"})
		s.AwaitReady(1)
		if user := d.do("exec", "plain", "/grace", "--version"); user == "" {
			t.Error("grace has no version")
		}
		d.do("stop", "plain")
		s.Ends(0)
	})
	t.Run("for anybody, upgraded under load", func(t *testing.T) { // with an app that takes any port
		programs := harness.StaticPrograms()
		s := d.run(t, "upgraded", []string{"--read-only", "--network", "host", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
			"--user", fmt.Sprintf("%d:0", harness.Anybody), "--tmpfs", "/run", "--volume", programs + "/app:/app:ro"},
			"--listen", "web=127.0.0.1:0", "--drain-delay", "15s", "--drain-timeout", "20s", "--", "/app")
		addr := s.Address("web")
		s.AwaitReady(1)
		stop := d.command("stop", "--time", "60", "upgraded")
		harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
			for g := 2; g <= 21; g++ {
				if g%4 == 0 {
					d.do("exec", "upgraded", "/grace", "upgrade")
				} else {
					d.do("kill", "--signal", "HUP", "upgraded")
				}
				s.AwaitReady(g)
			}
			if err := stop.Start(); err != nil {
				t.Fatal(err)
			}
			s.AwaitMessage("still serving until --drain-delay is over")
		})
		if err := stop.Wait(); err != nil {
			t.Errorf("docker stop: %v", err)
		}
		s.Ends(0)
	})
}
