package supervisor

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestOutputOf(t *testing.T) {
	dir := t.TempDir()
	file, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	gone, err := os.Create(filepath.Join(dir, "gone"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(gone.Name()); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []*os.File{file, gone, r, w, null} {
		defer f.Close()
	}
	pid := os.Getpid()
	descriptor := func(f *os.File) int { return int(f.Fd()) }
	if got, err := OutputOf(pid, descriptor(file)); err != nil || got.File != file.Name() || got.Where != file.Name() {
		t.Errorf("a file: %+v, %v", got, err)
	}
	if got, err := OutputOf(pid, descriptor(gone)); err != nil || got.File != "/proc/"+strconv.Itoa(pid)+"/fd/"+strconv.Itoa(descriptor(gone)) || !strings.HasSuffix(got.Where, "/gone (deleted)") {
		t.Errorf("a file that was removed: %+v, %v", got, err)
	}
	if got, err := OutputOf(pid, descriptor(w)); err != nil || got.File != "" || !strings.Contains(got.Where, "process "+strconv.Itoa(pid)+" (") {
		t.Errorf("a pipe: %+v, %v", got, err)
	}
	if got, err := OutputOf(pid, descriptor(null)); err != nil || !strings.HasPrefix(got.Where, "/dev/null") {
		t.Errorf("nothing: %+v, %v", got, err)
	}
	if _, err := OutputOf(pid, 999); err == nil {
		t.Error("a descriptor that is not there goes somewhere")
	}
}

func TestReaderOfAPipeIsNamed(t *testing.T) {
	reader := exec.Command("cat")
	in, err := reader.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	defer reader.Wait()
	defer in.Close()
	got, err := OutputOf(os.Getpid(), int(in.(interface{ Fd() uintptr }).Fd()))
	if want := "a pipe that process " + strconv.Itoa(reader.Process.Pid) + " (cat) reads"; err != nil || got.Where != want {
		t.Errorf("%+v, want %s (%v)", got, want, err)
	}
}

func TestUnitOfACgroup(t *testing.T) {
	for cgroup, want := range map[string]struct {
		unit   string
		ofUser bool
	}{
		"0::/system.slice/shop.service\n":                                          {"shop.service", false},
		"0::/system.slice/system-grace.slice/grace@shop.service/sub\n":             {"grace@shop.service", false},
		"0::/user.slice/user-7.slice/user@7.service/app.slice/shop.service\n":      {"shop.service", true},
		"1:name=systemd:/system.slice/other.service\n0::/system.slice/a.service\n": {"a.service", false},
		"0::/\n": {"", false},
	} {
		if unit, ofUser := unitIn(cgroup); unit != want.unit || ofUser != want.ofUser {
			t.Errorf("%q: %s, %v", cgroup, unit, ofUser)
		}
	}
}
