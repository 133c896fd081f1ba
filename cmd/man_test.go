package cmd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gracerun/grace/internal/requirement"
)

// groff finds nothing to complain of, and shows what the commands say.
func TestManual(t *testing.T) {
	dir := t.TempDir()
	if got := say(t, "man", dir); got.status != 0 {
		t.Fatalf("%+v", got)
	}
	pages, err := filepath.Glob(dir + "/*.1")
	if err != nil || len(pages) < 10 {
		t.Errorf("pages: %q, %v", pages, err)
	}
	_, err = exec.LookPath("groff")
	requirement.Check(t, "groff", err)
	for _, page := range pages {
		out, err := exec.Command("groff", "-man", "-Tutf8", "-ww", "-rLL=200n", "-P-c", page).CombinedOutput()
		if err != nil || strings.Contains(string(out), "warning") || strings.Contains(string(out), "error:") {
			t.Errorf("%s: %v\n%s", page, err, out)
		}
		if filepath.Base(page) == "grace-upgrade.1" {
			checkVerbatim(t, string(out), upgradeLong+"\n"+upgradeExample)
		}
	}
}

func checkVerbatim(t *testing.T, page, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		if !strings.Contains(page, strings.TrimSuffix(line, "\n")+"\n") {
			t.Errorf("the page does not say %q", line)
		}
	}
}

func TestManualThatCannotBeWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := say(t, "man", file); got.status != 1 || !strings.Contains(got.err, "cannot write the manual: ") {
		t.Errorf("%+v", got)
	}
}

// What a line begins with can mean something to the formatter.
func TestRoff(t *testing.T) {
	if got, want := roff(".TH a-b\n'c \\d\n e."), `\&.TH a\-b`+"\n"+`\(aqc \(rsd`+"\n"+` e.`; got != want {
		t.Errorf("got %s", got)
	}
}
