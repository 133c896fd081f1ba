package cmd

import (
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/gracerun/grace/supervisor/control"
)

func TestVersion(t *testing.T) {
	got := say(t, "version")
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	if got.status != 0 || !strings.HasPrefix(got.out, "grace ") || !strings.Contains(got.out, "\n"+runtime.Version()+" linux/") ||
		!strings.Contains(got.out, "\nkernel Linux "+strings.TrimSpace(string(release))+" ") {
		t.Errorf("said %+v", got)
	}
}

func TestVersionOfABuild(t *testing.T) {
	build := &debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}, Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.time", Value: "2026-05-04T03:02:01Z"}, {Key: "vcs.modified", Value: "true"}}}
	goLine := runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH + "\n"
	for _, c := range []struct {
		build  *debug.BuildInfo
		kernel string
		want   string
	}{
		{build, "Linux 6", "grace v1.2.3\ncommit abc of 2026-05-04T03:02:01Z, with uncommitted changes\n" + goLine + "kernel Linux 6\n"},
		{&debug.BuildInfo{}, "", "grace (devel)\n" + goLine},
		{nil, "", "grace (devel)\n" + goLine},
	} {
		var b strings.Builder
		if err := printVersion(&b, c.build, c.kernel); err != nil || b.String() != c.want {
			t.Errorf("said %q, want %q (%v)", b.String(), c.want, err)
		}
	}
}

// What people type from habit with nginx and systemctl.
func TestReloadIsUpgrade(t *testing.T) {
	inPlace(t)
	serve(t, "cmd-test-reload", &fake{lines: []control.Line{{Result: &control.Result{Outcome: control.Upgraded, Generation: 5}}}})
	upgrade, reload := say(t, "upgrade", "cmd-test-reload"), say(t, "reload", "cmd-test-reload")
	if reload != upgrade || reload.status != 0 {
		t.Errorf("reload said %+v, upgrade %+v", reload, upgrade)
	}
}
