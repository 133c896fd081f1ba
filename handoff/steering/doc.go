// Package steering chooses which generation of an app gets new connections, in the kernel: by reuseport groups of the TCP
// sockets that the generations have bound themselves, and by exchanging the files at unix paths. It works only on Linux.
package steering
