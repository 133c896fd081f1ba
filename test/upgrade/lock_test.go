package upgrade

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/test/harness"
)

// TestLockOfTheOldGenerationIsNamed where the new one ends without it or waits for it, and not where each has a file of its own.
func TestLockOfTheOldGenerationIsNamed(t *testing.T) {
	for name, test := range map[string]struct {
		script string
		named  bool
	}{
		"ends":            {`exec 9>>lock; flock -n 9 || exit 3; exec $APP`, true},
		"waits":           {`exec 9>>lock; flock 9; exec $APP`, true},
		"ends, by fcntl":  {`exec python3 -c "import fcntl, time; f = open('lock', 'a'); fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB); time.sleep(1000)"`, true},
		"file of its own": {`exec 9>>pid-$$; flock -n 9 || exit 3; test -e broken && exit 4; exec $APP`, false},
		"file of another": {`exec 9>>lock; flock -n 9; test -e broken && exec sleep 1000 9>&-; exec $APP`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, ready := t.TempDir(), "auto"
			if strings.Contains(test.script, "python3") {
				ready = "delay" // it has no socket
			}
			program := harness.Write(t, dir, "program", "#!/bin/bash\nAPP="+harness.AppBinary()+"\n"+test.script+"\n", 0o755)
			s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--chdir", dir, "--ready", ready, "--ready-delay", "3s", "--ready-timeout", "4s", "--", program)
			s.AwaitReady(1)
			if err := os.WriteFile(filepath.Join(dir, "broken"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			s.Signal(syscall.SIGHUP)
			e := s.AwaitGeneration("upgrade failed, generation 1 still serves", 2)
			hint := "generation 1 holds a lock on " + filepath.Join(dir, "lock") + ": if the app cannot run twice, use grace restart or --max-surge 0"
			if strings.Contains(e.Why, hint) != test.named || !test.named && strings.Contains(e.Why, "lock") {
				t.Errorf("the reason is %q", e.Why)
			}
			s.AwaitGeneration("generation ended", 2)
			s.Stop()
		})
	}
}
