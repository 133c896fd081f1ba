package unitfile

import (
	"fmt"
	"strings"
)

// Service is what a unit has to know of one command line.
type Service struct {
	Name    string
	Grace   string     // the path of the program
	Flags   [][]string // each with its value
	Command []string
	// User is whose rights grace has: "" is a user that exists only while the unit runs.
	User string
	// Farewell says that grace asks clients to close their connections, for which it needs rights.
	Farewell bool
	// Home says that something of the app is in a home directory.
	Home bool
	// RuntimeDirs are the directories below /run for its sockets and its pid file, and Writable those elsewhere.
	RuntimeDirs, Writable []string
}

// Root is the User of a grace process that starts the app as another one.
const Root = "root"

// Text is the unit.
func (s Service) Text() string {
	return s.head() + s.start() + survives + s.directories() + s.rights() + sandbox + s.home() + foot
}

func (s Service) head() string {
	return fmt.Sprintf(`# %[1]s.service, written by "grace unit". To install it:
#
#   cp %[1]s.service /etc/systemd/system/
#   systemctl daemon-reload
#   systemctl enable --now %[1]s
#
# The app gets none of the variables of your shell: put them into a file and name that with --env-file. It can write to
# /var/lib/grace/%[1]s ($STATE_DIRECTORY). For another directory: ReadWritePaths=

[Unit]
Description=%[1]s under grace
Documentation=https://github.com/gracerun/grace/blob/main/docs/systemd.md
After=network.target

`, s.Name)
}

func (s Service) start() string {
	lines := []string{path(s.Grace) + " run --name " + s.Name}
	for _, flag := range s.Flags {
		lines = append(lines, line(flag))
	}
	if len(s.Command) > 0 {
		lines = append(lines, "-- "+line(s.Command))
	}
	return "[Service]\nType=notify\nExecStart=" + strings.Join(lines, " \\\n    ") +
		"\nExecReload=" + path(s.Grace) + " upgrade " + s.Name + "\n"
}

// survives lets the app outlive a grace process that is killed.
const survives = `# Only grace gets TERM. It drains the app, and requests from systemd the time that this takes. If grace is killed, the app
# stays, and the next grace process adopts it. FDSTORE is for systemd before 254, which does not set it.
# Status 150 says that the app was released ("grace release").
KillMode=process
Restart=always
RestartPreventExitStatus=150
SuccessExitStatus=150
FileDescriptorStoreMax=1024
Environment=FDSTORE=1024 GRACE_RELEASE_STATUS=150
OOMPolicy=continue
WatchdogSec=30s
`

func (s Service) directories() string {
	var b strings.Builder
	fmt.Fprintln(&b, "RuntimeDirectory="+strings.Join(append([]string{"grace/" + s.Name}, words(s.RuntimeDirs)...), " "))
	if len(s.RuntimeDirs) > 0 {
		// exec_directory_sort in systemd's src/core/load-fragment.c
		fmt.Fprintf(&b, "# grace takes the first directory of the variable, and systemd sorts them.\nEnvironment=RUNTIME_DIRECTORY=/run/grace/%s\n", s.Name)
	}
	fmt.Fprintf(&b, "RuntimeDirectoryPreserve=restart\nStateDirectory=grace/%s\n", s.Name)
	if len(s.Writable) > 0 {
		fmt.Fprintln(&b, "ReadWritePaths="+strings.Join(words(s.Writable), " "))
	}
	b.WriteString("LimitNOFILE=524288\nUMask=0027\n\n")
	return b.String()
}

// words are the members of a list of paths, of which systemd replaces specifiers only.
func words(paths []string) (written []string) {
	for _, p := range paths {
		written = append(written, path(p))
	}
	return written
}

func (s Service) rights() string {
	var text string
	capabilities := "CAP_NET_BIND_SERVICE"
	switch s.User {
	case "":
		text = "# A user that exists only while the app runs. To run as an existing user: DynamicUser=no and User=\nDynamicUser=yes\n"
	case Root:
		// Those that grace needs for an app of another user, as docs/systemd.md names them.
		capabilities += " CAP_SETUID CAP_SETGID CAP_CHOWN CAP_KILL CAP_SYS_PTRACE CAP_DAC_OVERRIDE"
		if s.Farewell {
			capabilities += " CAP_BPF CAP_NET_ADMIN"
		}
		return "# grace starts the app as the user of --user, without any of these capabilities.\nCapabilityBoundingSet=" + capabilities + "\n\n" + s.calls()
	default:
		text = "User=" + path(s.User) + "\n"
	}
	return text + "AmbientCapabilities=" + capabilities + "\nCapabilityBoundingSet=" + capabilities + "\n\n" + s.calls()
}

func (s Service) calls() string {
	more := ""
	if s.User == Root && s.Farewell {
		more = " bpf"
	}
	return `# seccomp and pidfd_getfd are needed for apps that bind their own sockets (no --listen): grace installs a seccomp filter in
# the app and duplicates its sockets. AF_NETLINK is for counting connections. MemoryDenyWriteExecute=yes can be added
# for apps that do not compile code at run time, as Java and Node do.
SystemCallFilter=@system-service seccomp pidfd_getfd` + more + "\n"
}

const sandbox = `SystemCallErrorNumber=EPERM
SystemCallArchitectures=native
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
NoNewPrivileges=yes
LockPersonality=yes
PrivateDevices=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
`

func (s Service) home() string {
	if s.Home {
		return "ProtectHome=read-only\n"
	}
	return "ProtectHome=yes\n"
}

const foot = `ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RemoveIPC=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes

[Install]
WantedBy=multi-user.target
`
