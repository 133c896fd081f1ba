package shim

import (
	"runtime"
	"strconv"
	"syscall"
)

// nobody stands for no change of identity.
const nobody = "-"

// name is argv[0] of a grace that is about to become an app.
const name = "grace-shim"

// Spec is what the shim has to do. It travels in the command line, so nothing
// secret belongs in it: the environment comes as the shim's own.
type Spec struct {
	Path     string
	Program  int       // a descriptor of the executable, which then is executed whatever Path leads to; 0: none
	PIDVars  []string  // variables to be set to the process's own pid
	Umask    int       // -1 leaves grace's own
	Report   int       // the descriptor that takes a Failure, or is closed by the exec
	Identity *Identity // nil leaves grace's own

	// Capture is one end of a connection of SEQPACKET type: it takes the descriptor of the filter's listener, and gives
	// one byte when grace has it. -1 is for no filter.
	Capture    int
	Unlink     bool // the filter is for unlink too
	NoNewPrivs bool
}

// Identity is a user with the groups its process gets.
type Identity struct {
	UID, GID int
	Groups   []int
}

// Failure is the step that went wrong: setenv, no-new-privs, seccomp, listener,
// setgroups, setgid, setuid, capabilities or exec.
type Failure struct {
	Step  string
	Errno syscall.Errno
}

// Argv is the command line of the shim for an app with these arguments.
func (e Spec) Argv(args []string) []string {
	id := nobody
	if e.Identity != nil {
		id = numbers(append([]int{e.Identity.UID, e.Identity.GID}, e.Identity.Groups...))
	}
	vars := ""
	for _, v := range e.PIDVars {
		vars += v + ","
	}
	return append([]string{
		name, strconv.Itoa(e.Umask), strconv.Itoa(e.Report), id, vars,
		strconv.Itoa(e.Capture), strconv.FormatBool(e.Unlink), strconv.FormatBool(e.NoNewPrivs), e.Path, strconv.Itoa(e.Program),
	}, args...)
}

func numbers(list []int) string {
	text := ""
	for _, n := range list {
		text += strconv.Itoa(n) + ","
	}
	return text
}

// ParseFailure reads what the shim has reported, after Executing.
func ParseFailure(text string) (Failure, bool) {
	if len(text) > 0 && text[:1] == Executing {
		text = text[1:]
	}
	f := fields(text, ',')
	if len(f) != 2 {
		return Failure{}, false
	}
	errno, err := strconv.Atoi(f[1])
	return Failure{f[0], syscall.Errno(errno)}, err == nil
}

// Executing is reported before the exec: nothing at all is the report of a shim that has died before.
const Executing = "+"

// head is how many words come before the app's arguments, the name included.
const head = 10

func init() {
	argv := commandLine()
	if len(argv) <= head || argv[0] != name {
		return
	}
	e, ok := parse(argv[1:head])
	if !ok {
		syscall.Exit(statusFailed)
	}
	step, err := e.run(argv[head:])
	errno, _ := err.(syscall.Errno)
	// Nobody is left to tell if this write fails; the exit status says it too.
	_, _ = syscall.Write(e.Report, []byte(step+","+strconv.Itoa(int(errno))+","))
	syscall.Exit(statusFailed)
}

const statusFailed = 126

// commandLine reads what package os would know, were it there already.
func commandLine() []string {
	fd, err := syscall.Open("/proc/self/cmdline", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer syscall.Close(fd)
	text := make([]byte, 0, 4096)
	for {
		n, err := syscall.Read(fd, text[len(text):cap(text)])
		if n <= 0 || err != nil {
			return fields(string(text), 0)
		}
		text = text[:len(text)+n]
		if !isShim(text) {
			return nil // no need to read on: every start of grace comes by here
		}
		if len(text) == cap(text) {
			text = append(text, 0)[:len(text)]
		}
	}
}

func isShim(text []byte) bool {
	return len(text) > len(name) && string(text[:len(name)]) == name && text[len(name)] == 0
}

// fields are each followed by the separator.
func fields(text string, separator byte) []string {
	var list []string
	begin := 0
	for i := range len(text) {
		if text[i] == separator {
			list = append(list, text[begin:i])
			begin = i + 1
		}
	}
	return list
}

func parse(f []string) (Spec, bool) {
	umask, err1 := strconv.Atoi(f[0])
	report, err2 := strconv.Atoi(f[1])
	id, ok := parseIdentity(f[2])
	capture, err3 := strconv.Atoi(f[4])
	unlink, err4 := strconv.ParseBool(f[5])
	noNewPrivs, err5 := strconv.ParseBool(f[6])
	program, err6 := strconv.Atoi(f[8])
	return Spec{
		Path: f[7], Program: program, PIDVars: fields(f[3], ','), Umask: umask, Report: report, Identity: id,
		Capture: capture, Unlink: unlink, NoNewPrivs: noNewPrivs,
	}, ok && err1 == nil && err2 == nil && err3 == nil && err4 == nil && err5 == nil && err6 == nil
}

func parseIdentity(text string) (*Identity, bool) {
	if text == nobody {
		return nil, true
	}
	var ids []int
	for _, number := range fields(text, ',') {
		n, err := strconv.Atoi(number)
		if err != nil {
			return nil, false
		}
		ids = append(ids, n)
	}
	if len(ids) < 2 {
		return nil, false
	}
	return &Identity{ids[0], ids[1], ids[2:]}, true
}

// run does not return unless something failed. Credentials go last: set before the exec of the shim itself, they make a
// private grace unreadable, and set before the filter, they take the right to install it.
func (e Spec) run(argv []string) (string, error) {
	syscall.CloseOnExec(e.Report)
	pid := strconv.Itoa(syscall.Getpid())
	for _, name := range e.PIDVars {
		if err := syscall.Setenv(name, pid); err != nil {
			return "setenv", err
		}
	}
	if e.Umask >= 0 {
		syscall.Umask(e.Umask)
	}
	if step, err := e.restrict(); err != nil {
		return step, err
	}
	if e.Identity != nil {
		if step, err := e.Identity.take(); err != nil {
			return step, err
		}
	}
	if _, err := syscall.Write(e.Report, []byte(Executing)); err != nil {
		return "report", err
	}
	return "exec", e.execute(argv)
}

// restrict concerns its own thread alone, and of all threads the exec keeps the one that calls it.
func (e Spec) restrict() (string, error) {
	runtime.LockOSThread()
	if e.NoNewPrivs {
		if err := setNoNewPrivs(); err != nil {
			return "no-new-privs", err
		}
	}
	if e.Capture < 0 {
		return "", nil
	}
	syscall.CloseOnExec(e.Capture)
	return capture(e.Capture, e.Unlink)
}

func (id Identity) take() (string, error) {
	if err := syscall.Setgroups(id.Groups); err != nil {
		return "setgroups", err
	}
	if err := syscall.Setgid(id.GID); err != nil {
		return "setgid", err
	}
	if err := syscall.Setuid(id.UID); err != nil {
		return "setuid", err
	}
	return "capabilities", dropAmbient()
}

// dropAmbient: the kernel takes capabilities from who was root, and from nobody else (cap_emulate_setxuid in
// security/commoncap.c). Those in the ambient set would outlive the exec.
func dropAmbient() error {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, prCapAmbient, prCapAmbientClearAll, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
