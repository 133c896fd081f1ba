package main

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/internal/requirement"
	"github.com/gracerun/grace/test/harness"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { os.Exit(harness.Run(m.Run)) }

// built is the program that other tests build too: compiling takes most of the time of a release.
func built(t *testing.T) (sources, program) {
	t.Helper()
	s, err := openSources("../..")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(harness.StaticPrograms(), "grace")
	p, err := openProgram(path, runtime.GOARCH, path)
	if err != nil {
		t.Fatal(err)
	}
	return s, p
}

// packed makes a release with a file in place of the program, as the race detector compresses slowly.
func packed(t *testing.T) (dir string, s sources, p program) {
	t.Helper()
	s, p = built(t)
	p.path = filepath.Join(t.TempDir(), "grace")
	if err := os.WriteFile(p.path, []byte("a program"), 0o755); err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if err := s.pack([]program{p}, dir); err != nil {
		t.Fatal(err)
	}
	return dir, s, p
}

func one(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		t.Fatalf("%s is %v, %v, instead of one file", pattern, found, err)
	}
	return found[0]
}

func TestAReleaseIsTheSameEachTime(t *testing.T) {
	first, s, p := packed(t)
	second := t.TempDir()
	if err := s.pack([]program{p}, second); err != nil {
		t.Fatal(err)
	}
	sums := func(dir string) string {
		text, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if a, b := sums(first), sums(second); a != b {
		t.Errorf("two releases differ:\n%s\n%s", a, b)
	}
	if out, err := inDir(first, "sha256sum", "--check", "--strict", "SHA256SUMS"); err != nil {
		t.Errorf("sha256sum: %v: %s", err, out)
	}
}

func inDir(dir, program string, arguments ...string) ([]byte, error) {
	c := exec.Command(program, arguments...)
	c.Dir = dir
	return c.CombinedOutput()
}

func TestTheArchiveHasWhatAPackageInstalls(t *testing.T) {
	dir, s, p := packed(t)
	files, err := s.install(p)
	if err != nil {
		t.Fatal(err)
	}
	archived := map[string]fs.FileMode{}
	in, err := os.Open(one(t, dir+"/*.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	unzipped, err := gzip.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(unzipped); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		archived["/"+h.Name] = fs.FileMode(h.Mode)
	}
	for _, f := range files {
		if mode, found := archived[f.path]; !found || mode != f.mode {
			t.Errorf("%s: in the archive %v, with mode %v instead of %v", f.path, found, mode, f.mode)
		}
	}
	for _, want := range []string{"/usr/bin/grace", "/usr/lib/systemd/system/grace@.service", "/usr/share/man/man1/grace-run.1.gz", "/usr/share/bash-completion/completions/grace", "/usr/share/doc/grace/copyright"} {
		if archived[want] == 0 {
			t.Errorf("the archive does not have %s", want)
		}
	}
}

func TestUnitsStartTheInstalledProgram(t *testing.T) {
	_, s, p := packed(t)
	units, err := s.units(p)
	if err != nil {
		t.Fatal(err)
	}
	if text := string(units[0].text); !strings.Contains(text, "ExecStart=/usr/bin/grace run") || strings.Contains(text, "/usr/local") {
		t.Errorf("%s does not start /usr/bin/grace:\n%s", units[0].path, text)
	}
}

func TestTheBillNamesTheModulesOfTheProgram(t *testing.T) {
	dir, _, p := packed(t)
	in, err := os.Open(one(t, dir+"/*.cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var bill cyclonedx.BOM
	if err := cyclonedx.NewBOMDecoder(in, cyclonedx.BOMFileFormatJSON).Decode(&bill); err != nil {
		t.Fatal(err)
	}
	named := map[string]string{}
	for _, c := range *bill.Components {
		named[c.Name] = c.Version
	}
	for _, m := range p.build.Deps {
		if named[m.Path] != m.Version {
			t.Errorf("%s is %q in the bill, and %q in the program", m.Path, named[m.Path], m.Version)
		}
	}
	if named["std"] != strings.TrimPrefix(runtime.Version(), "go") {
		t.Errorf("Go is %q in the bill, and %s here", named["std"], runtime.Version())
	}
}

func TestTheImageIsOne(t *testing.T) {
	dir, _, p := packed(t)
	unpacked := t.TempDir()
	if out, err := inDir(unpacked, "tar", "--extract", "--file", one(t, dir+"/*-oci.tar")); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	index, err := layout.ImageIndexFromPath(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	manifests, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	platforms, err := index.ImageIndex(manifests.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	of, err := platforms.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if of.Manifests[0].Platform.Architecture != p.architecture {
		t.Errorf("the image is for %v", of.Manifests[0].Platform)
	}
}

// go install takes no module at a version whose go.mod replaces others, or leaves versions out.
func TestGoCanInstallTheModule(t *testing.T) {
	text, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if found := regexp.MustCompile(`(?m)^(replace|exclude)\b.*`).FindAll(text, -1); found != nil {
		t.Errorf("go.mod has %q", found)
	}
}

func TestAFolderWithFilesIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/old", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := makeEmpty(dir); err == nil || !strings.Contains(err.Error(), "old") {
		t.Errorf("a folder with a file is taken: %v", err)
	}
}

func TestTheRPMHasTheSameFiles(t *testing.T) {
	dir, s, p := packed(t)
	_, err := exec.LookPath("rpm")
	requirement.Check(t, "rpm", err)
	out, err := inDir(dir, "rpm", "--query", "--package", "--list", "--nosignature", one(t, dir+"/*.rpm"))
	if err != nil {
		t.Fatalf("rpm: %v: %s", err, out)
	}
	listed := strings.Fields(string(out))
	files, err := s.install(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !slices.Contains(listed, f.path) {
			t.Errorf("the package does not have %s", f.path)
		}
	}
}

// root is a file system with nothing but a shell, for the package's scripts, and what was installed.
type root struct {
	t   *testing.T
	dir string
}

func newRoot(t *testing.T) root {
	t.Helper()
	if os.Geteuid() != 0 {
		requirement.Check(t, "root", errors.New("only root may install packages"))
	}
	_, err := exec.LookPath("dpkg")
	requirement.Check(t, "dpkg", err)
	r := root{t, t.TempDir()}
	for _, dir := range []string{"proc", "tmp", "dev", "run", "var/lib/dpkg/info", "var/lib/dpkg/updates"} {
		r.must(os.MkdirAll(r.at(dir), 0o755))
	}
	r.must(os.WriteFile(r.at("var/lib/dpkg/status"), nil, 0o644))
	r.must(os.WriteFile(r.at("dev/null"), nil, 0o666))
	r.addShell()
	r.must(unix.Mount("proc", r.at("proc"), "proc", 0, ""))
	t.Cleanup(func() { r.must(unix.Unmount(r.at("proc"), unix.MNT_DETACH)) })
	return r
}

func (r root) at(path string) string { return filepath.Join(r.dir, path) }

func (r root) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// addShell copies /bin/sh and the libraries that ldd names.
func (r root) addShell() {
	r.t.Helper()
	out, err := exec.Command("ldd", "/bin/sh").Output()
	r.must(err)
	r.add("/bin/sh", "/bin/sh")
	for _, word := range strings.Fields(string(out)) {
		if strings.HasPrefix(word, "/") {
			r.add(word, word)
		}
	}
}

func (r root) add(from, to string) {
	r.t.Helper()
	text, err := os.ReadFile(from)
	r.must(err)
	r.must(os.MkdirAll(filepath.Dir(r.at(to)), 0o755))
	r.must(os.WriteFile(r.at(to), text, 0o755))
}

func (r root) dpkg(arguments ...string) string {
	r.t.Helper()
	out, err := exec.Command("dpkg", append([]string{"--root=" + r.dir, "--force-not-root"}, arguments...)...).CombinedOutput()
	if err != nil {
		r.t.Fatalf("dpkg %s: %v: %s", strings.Join(arguments, " "), err, out)
	}
	return string(out)
}

func (r root) command(arguments ...string) *exec.Cmd {
	return &exec.Cmd{
		Path: arguments[0], Args: arguments, Dir: "/", Env: []string{"PATH=/usr/bin:/bin", "HOME=/", "RUNTIME_DIRECTORY=/run/app"},
		SysProcAttr: &syscall.SysProcAttr{Chroot: r.dir, Pdeathsig: syscall.SIGKILL},
	}
}

func (r root) run(arguments ...string) string {
	r.t.Helper()
	out, err := r.command(arguments...).CombinedOutput()
	if err != nil {
		r.t.Fatalf("%s: %v: %s", strings.Join(arguments, " "), err, out)
	}
	return string(out)
}

func TestTheDebianPackageWorksInACleanRoot(t *testing.T) {
	s, p := built(t)
	r := newRoot(t)
	files, err := s.install(p)
	r.must(err)
	dir := t.TempDir()
	r.must(writePackage(dir, "deb", p, files, s.committed))
	r.dpkg("--install", one(t, dir+"/*.deb"))
	if out := r.dpkg("--status", "grace"); !strings.Contains(out, "Status: install ok installed") {
		t.Errorf("grace is not installed: %s", out)
	}
	if out := r.run("/usr/bin/grace", "version"); !strings.Contains(out, runtime.Version()) {
		t.Errorf("grace version says %q", out)
	}
	r.add(filepath.Join(filepath.Dir(p.path), "app"), "/srv/app")
	r.quickStart()
	r.dpkg("--purge", "grace")
	for _, left := range []string{"/usr/bin/grace", "/usr/lib/systemd/system/grace@.service", "/etc/grace"} {
		if _, err := os.Lstat(r.at(left)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", left, err)
		}
	}
}

// quickStart is what the README has a newcomer do: run, upgrade, look, go back, stop.
func (r root) quickStart() {
	t := r.t
	t.Helper()
	runtime.LockOSThread() // for Pdeathsig, which comes when the thread ends
	defer runtime.UnlockOSThread()
	r.must(os.MkdirAll(r.at("run/app"), 0o700))
	address := freeport.Address(t)
	c := r.command("/usr/bin/grace", "run", "--name", "app", "--", "/srv/app", "-addr", address)
	log, err := c.StderrPipe()
	r.must(err)
	r.must(c.Start())
	lines := bufio.NewScanner(log)
	awaitServing(t, lines)
	harness.UnderLoad(t, load.Config{Addr: address, Clients: map[load.Kind]int{load.NewConnection: 2, load.Slow: 1}}, func() {
		r.run("/usr/bin/grace", "upgrade", "app")
		r.run("/usr/bin/grace", "rollback", "app")
	})
	if out := r.run("/usr/bin/grace", "status", "app"); !strings.Contains(out, "serving") {
		t.Errorf("grace status: %s", out)
	}
	go func() { // until its end
		for lines.Scan() {
		}
	}()
	r.run("/usr/bin/grace", "stop", "app")
	if err := c.Wait(); err != nil {
		t.Errorf("grace run: %v", err)
	}
	if conn, err := net.Dial("tcp", address); err == nil {
		conn.Close()
		t.Error("somebody listens after the stop")
	}
}

func awaitServing(t *testing.T, lines *bufio.Scanner) {
	t.Helper()
	var all strings.Builder
	for lines.Scan() {
		fmt.Fprintln(&all, lines.Text())
		if strings.Contains(lines.Text(), "serving") {
			return
		}
	}
	t.Fatalf("grace does not serve: %s", all.String())
}
