package capture

import "golang.org/x/sys/unix"

// NeedsNoNewPrivs reports whether the kernel lets a child of this process install
// the filter only if that gives up the rights of setuid programs and file
// capabilities: without CAP_SYS_ADMIN in its own user namespace (seccomp(2)).
func NeedsNoNewPrivs() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&header, &data[0])
	return err != nil || data[0].Effective&(1<<unix.CAP_SYS_ADMIN) == 0
}
