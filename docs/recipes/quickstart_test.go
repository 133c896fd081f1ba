package recipes

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/internal/requirement"
	"github.com/gracerun/grace/test/harness"
)

// walk follows a page from its start to its end: the blocks "then" and "fails" are commands that end with 0 and with another status, "run" and "load"
// are those of other terminals, "log" and "tally" are what these two print later.
type walk struct {
	t           *testing.T
	dir         string
	run, client *harness.Process
	done        map[string]int
}

func TestQuickStart(t *testing.T) {
	requirement.Check(t, "python", recipe{needs: []string{"python", "curl"}}.missing())
	t.Parallel()
	text := harness.Read(t, "../quickstart.md")
	text = strings.ReplaceAll(text, "8000", port(freeport.Address(t)))
	w := walk{t: t, dir: t.TempDir(), done: map[string]int{}}
	link(t, w.dir, []string{harness.GraceBinary()})
	for _, block := range blocks(text) {
		w.follow(block)
	}
	if w.done["then"] < 5 || w.done["log"] == 0 || w.done["tally"] == 0 {
		t.Errorf("the page has only %v", w.done)
	}
	w.run.Wait()
	if strings.Contains(w.client.Output(), "curl") {
		t.Errorf("requests failed: %s", w.client.Output())
	}
}

func (w *walk) follow(b block) {
	w.t.Helper()
	command, printed := b.shell()
	w.done[b.kind()]++
	switch kind, file, _ := strings.Cut(b.kind(), "="); kind {
	case "file":
		w.write(file, b.text)
	case "then", "fails":
		w.perform(command, printed, kind == "fails")
	case "run":
		w.run = harness.StartProcess(w.t, w.shell("exec "+command))
		w.await(printed, w.run)
	case "load":
		w.load(command)
	case "log":
		w.await(b.text, w.run)
	case "tally":
		w.await(b.text, w.client)
		w.stopLoad()
	}
}

// load runs a pipeline, all of whose processes end with the test.
func (w *walk) load(command string) {
	w.t.Helper()
	cmd := w.shell(command)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	w.client = harness.StartProcess(w.t, cmd)
	w.t.Cleanup(w.stopLoad)
}

func (w *walk) stopLoad() { syscall.Kill(-w.client.PID(), syscall.SIGKILL) } // it may have ended

func (w *walk) write(file, text string) {
	w.t.Helper()
	path := filepath.Join(w.dir, file)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// shell has every line printed at once, as on a terminal, and finds no other grace process.
func (w *walk) shell(command string) *exec.Cmd {
	cmd := exec.Command("stdbuf", "-oL", "/bin/sh", "-c", command)
	cmd.Dir = w.dir
	cmd.Env = append(os.Environ(), "PATH="+w.dir+"/bin:"+searchPath(), "RUNTIME_DIRECTORY="+w.dir, "GRACE_LOG_FORMAT=text", "GRACE_SETTLE=200ms")
	return cmd
}

// perform fails if a command does not end, and print, as the page says.
func (w *walk) perform(command, printed string, fails bool) {
	w.t.Helper()
	out, err := w.shell(command).CombinedOutput()
	if line := missing(printed, string(out)); (err != nil) != fails || line != "" {
		w.t.Fatalf("%s: %v, without %q:\n%s", command, err, line, out)
	}
}

func (w *walk) await(printed string, of *harness.Process) {
	w.t.Helper()
	harness.Until(w.t, "the output of the page: "+printed, func() bool { return missing(printed, of.Output()) == "" })
}

// missing gives the first of these lines that is not in the output after the one before. Others may be between them.
func missing(lines, output string) string {
	output = alike(output)
	for line := range strings.Lines(lines) {
		want := alike(line)
		if want == "..." {
			continue
		}
		_, after, found := strings.Cut(output, want)
		if !found {
			return want
		}
		output = after
	}
	return ""
}

var (
	place  = regexp.MustCompile(`went to .*|/[[:alnum:]][^\s:"]*`)
	number = regexp.MustCompile(`(generation[ =]|version )?[0-9]+([.:-][0-9]+)*`)
	spaces = regexp.MustCompile(`[ \t]+`)
)

// alike leaves out what differs from one run to the next.
func alike(text string) string {
	text = place.ReplaceAllString(text, "PATH")
	text = number.ReplaceAllStringFunc(text, func(n string) string {
		if n[0] == 'g' || n[0] == 'v' {
			return n
		}
		return "N"
	})
	return strings.TrimSpace(spaces.ReplaceAllString(text, " "))
}
