// Package inetaddr translates between the internet's addresses and those of the kernel.
package inetaddr

import (
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Sockaddr is what bind and connect take for an address. Its zone is the name of an interface.
func Sockaddr(host netip.AddrPort) (unix.Sockaddr, error) {
	ip, port := host.Addr(), int(host.Port())
	if ip.Is4() {
		return &unix.SockaddrInet4{Addr: ip.As4(), Port: port}, nil
	}
	if ip.Zone() == "" {
		return &unix.SockaddrInet6{Addr: ip.As16(), Port: port}, nil
	}
	zone, err := net.InterfaceByName(ip.Zone())
	if err != nil {
		return nil, fmt.Errorf("zone %s: %w", ip.Zone(), err)
	}
	return &unix.SockaddrInet6{Addr: ip.As16(), Port: port, ZoneId: uint32(zone.Index)}, nil
}

// Family is that of the sockets which are bound to the address. An IPv4 address in an IPv6 one is of IPv6's.
func Family(ip netip.Addr) int {
	if ip.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// Of is the address in a sockaddr, and the zero value for one that is not the internet's.
func Of(name unix.Sockaddr) netip.AddrPort {
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(name.Addr), uint16(name.Port))
	case *unix.SockaddrInet6:
		ip := netip.AddrFrom16(name.Addr)
		if zone, err := net.InterfaceByIndex(int(name.ZoneId)); err == nil {
			ip = ip.WithZone(zone.Name)
		}
		return netip.AddrPortFrom(ip, uint16(name.Port))
	}
	return netip.AddrPort{}
}
