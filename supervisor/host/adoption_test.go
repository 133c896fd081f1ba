package host

import (
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/supervisor/machine"
)

// startUnseen starts an app of two processes as a grace process does that has no time left to note it. The first one leads the group.
func startUnseen(t *testing.T, env ...string) (pids []int) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "sleep 1000 & echo $!; wait")
	cmd.Env, cmd.SysProcAttr = append(env, "PATH=/usr/bin:/bin"), &syscall.SysProcAttr{Setpgid: true}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // it was killed
	})
	child := 0
	if _, err := fmt.Fscan(stdout, &child); err != nil {
		t.Fatal(err)
	}
	return []int{cmd.Process.Pid, child}
}

func TestInstancesOfTheLastMomentsAreRecognized(t *testing.T) {
	runtime := t.TempDir()
	for _, name := range []string{"a", "b", "c"} {
		socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(runtime, name), Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		socket.Close() // with the grace process; the path stays
	}
	starts := []machine.Start{
		{Generation: 1003, Of: 3, Instance: 7, Slot: 0, MustNotify: true},
		{Generation: 1003, Of: 3, Instance: 8, Slot: 1},
	}
	s := HostState{Runtime: runtime, Launches: map[int]LaunchSpecState{1003: {Path: "/bin/sh"}}}
	g := machine.GenerationSnapshot{Number: 1003, Of: 3}
	for _, start := range starts {
		s.Starts = append(s.Starts, StartState{start, start.Slot == 0})
		g.Instances = append(g.Instances, machine.InstanceSnapshot{ID: start.Instance, Slot: start.Slot, Phase: machine.PhaseStarting})
	}
	m := machine.Snapshot{Generations: []machine.GenerationSnapshot{g}}
	first := startUnseen(t, "NOTIFY_SOCKET="+runtime+"/a", "GRACE_GENERATION=3", "GRACE_INSTANCE=0")
	twin := startUnseen(t, "NOTIFY_SOCKET="+runtime+"/b", "GRACE_GENERATION=3", "GRACE_INSTANCE=0")
	older := startUnseen(t, "NOTIFY_SOCKET="+runtime+"/c", "GRACE_GENERATION=2", "GRACE_INSTANCE=1")
	stranger := startUnseen(t, "NOTIFY_SOCKET="+runtime+"/none", "GRACE_GENERATION=3", "GRACE_INSTANCE=1")
	others := startUnseen(t, "NOTIFY_SOCKET=/elsewhere/d", "GRACE_GENERATION=3", "GRACE_INSTANCE=1")
	unknown, err := s.unknown(m)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(unknown)
	if want := slices.Concat(first, twin, older, stranger); !slices.Equal(unknown, slices.Sorted(slices.Values(want))) {
		t.Fatalf("unknown are %v, want %v and not %v", unknown, want, others)
	}
	left := s.recognize(&m, []int{first[1], older[0], first[0], twin[0], twin[1], stranger[0], older[1]})
	if want := []int{older[0], twin[0], twin[1], stranger[0], older[1]}; !slices.Equal(left, want) {
		t.Errorf("%v are to be ended, want %v", left, want)
	}
	if len(s.Apps) != 1 || s.Apps[0].Start != starts[0] || s.Apps[0].Notify.Path != runtime+"/a" || !s.Apps[0].Captured || s.Apps[0].Main.Path != "/bin/sh" {
		t.Fatalf("recognized are %+v", s.Apps)
	}
	if i := m.AllInstances()[7]; i.PID != first[0] || i.Processes != 1 {
		t.Errorf("its instance is %+v", i)
	}
	if i := m.AllInstances()[8]; i.PID != 0 {
		t.Errorf("an instance without a process is %+v", i)
	}
	fd, err := s.Apps[0].Main.Open()
	if err != nil || fd < 0 {
		t.Errorf("its process cannot be opened: %d, %v", fd, err)
	}
	if err := syscall.Close(fd); err != nil {
		t.Error(err)
	}
	if members, err := childproc.Group(first[0]); err != nil || len(members) != 2 {
		t.Errorf("%v of it are left, %v", members, err)
	}
}
