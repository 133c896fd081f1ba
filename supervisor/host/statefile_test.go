package host

import (
	"os"
	"path/filepath"
	"testing"
)

func stateDir(t *testing.T) RuntimeDir {
	t.Helper()
	d := RuntimeDir{Path: filepath.Join(t.TempDir(), "run")}
	if err := os.Mkdir(d.Path, 0o700); err != nil {
		t.Fatal(err)
	}
	return d
}

func mustRead(t *testing.T, d RuntimeDir, want string) {
	t.Helper()
	if text, err := d.ReadState(); err != nil || string(text) != want {
		t.Errorf("%q, %v, want %q", text, err, want)
	}
}

func TestStateFile(t *testing.T) {
	d := stateDir(t)
	f := NewStateFile(d)
	defer f.Close()
	write := func(number uint64, text string) {
		t.Helper()
		if err := f.Write(number, []byte(text)); err != nil {
			t.Fatal(err)
		}
		mustRead(t, d, text)
	}
	write(1, "first")
	write(2, "second, which is longer")
	write(3, "third")
	if err := os.Remove(filepath.Join(d.Path, stateName)); err != nil {
		t.Fatal(err)
	}
	write(4, "after a cleaner")
	next := NewStateFile(d)
	defer next.Close()
	if err := next.Write(5, []byte("of another process")); err != nil {
		t.Fatal(err)
	}
	mustRead(t, d, "of another process")
}

// Of a process that is killed while it writes, the state before is left.
func TestHalfWrittenState(t *testing.T) {
	d := stateDir(t)
	f := NewStateFile(d)
	defer f.Close()
	for number, text := range map[uint64]string{1: "first", 2: "second"} {
		if err := f.Write(number, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	_, newest := readStateHalf(int(f.file.Fd()), (1-f.states.turn)*stateHalf)
	if _, err := f.file.WriteAt([]byte("x"), (1-f.states.turn)*stateHalf+stateHeaderSize); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"first": "second", "second": "first"}[string(newest)]
	mustRead(t, d, want)
}

// grace processes of earlier versions have written nothing but the state.
func TestStateWithoutAHeader(t *testing.T) {
	d := stateDir(t)
	if err := os.WriteFile(filepath.Join(d.Path, stateName), []byte(`{"Version":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	mustRead(t, d, `{"Version":1}`)
}
