package childproc

import (
	"encoding/json"
	"os"
	"strconv"
	"syscall"
)

// shimName is argv[0] of a grace that is about to become an app.
const shimName = "grace-shim"

// errand is what the shim has to do; it travels as argv[1], so nothing secret
// belongs in it: the environment comes as the shim's own.
type errand struct {
	Path     string    `json:"path"`
	PIDVars  []string  `json:"pidvars,omitempty"`
	Umask    int       `json:"umask"`
	Identity *Identity `json:"identity,omitempty"`
	Report   int       `json:"report"` // the descriptor that takes a StartError
}

// Shim turns the process into an app if it was started for that, and does
// nothing otherwise. It must be the first thing that main does.
func Shim() {
	if len(os.Args) < 3 || os.Args[0] != shimName {
		return
	}
	var e errand
	if err := json.Unmarshal([]byte(os.Args[1]), &e); err != nil {
		os.Exit(126)
	}
	failed := e.run(os.Args[2:])
	e.report(failed)
	os.Exit(failed.Status())
}

// run does not return unless something failed. Credentials go last: set before
// the exec of the shim itself, they make a private grace unreadable.
func (e *errand) run(argv []string) *StartError {
	syscall.CloseOnExec(e.Report)
	for _, name := range e.PIDVars {
		if err := os.Setenv(name, strconv.Itoa(os.Getpid())); err != nil {
			return startError("setenv", e.Path, err)
		}
	}
	if e.Umask >= 0 {
		syscall.Umask(e.Umask)
	}
	if e.Identity != nil {
		if failed := e.become(*e.Identity); failed != nil {
			return failed
		}
	}
	// syscall.Exec and not a bare execve: it gives back the RLIMIT_NOFILE that
	// Go's runtime has raised (syscall/exec_unix.go).
	return startError("exec", e.Path, syscall.Exec(e.Path, argv, os.Environ()))
}

func (e *errand) become(id Identity) *StartError {
	if err := syscall.Setgroups(id.Groups); err != nil {
		return startError("setgroups", e.Path, err)
	}
	if err := syscall.Setgid(id.GID); err != nil {
		return startError("setgid", e.Path, err)
	}
	if err := syscall.Setuid(id.UID); err != nil {
		return startError("setuid", e.Path, err)
	}
	return nil
}

func (e *errand) report(failed *StartError) {
	// Nobody is left to tell if this write fails; the exit status says it too.
	if text, err := json.Marshal(failed); err == nil {
		_, _ = syscall.Write(e.Report, text)
	}
}
