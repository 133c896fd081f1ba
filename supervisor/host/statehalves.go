package host

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// stateHalves has room for two states in a file, which are written in turns: of a process that is killed while it writes one, the
// other one is left. The descriptor is its owner's.
type stateHalves struct {
	fd   int
	turn int64 // of which half is written next
}

// stateHeader precedes each state. The number tells the newer one.
type stateHeader struct {
	Magic  [8]byte
	Number uint64
	Length uint64
	Sum    [sha256.Size]byte
}

var (
	stateMagic      = [8]byte{'g', 'r', 'a', 'c', 'e', 's', 't', '1'}
	stateHeaderSize = int64(binary.Size(stateHeader{}))
)

// stateHalf is where the second one begins. What is between the two takes no memory.
const stateHalf = 2 * longestState

// write puts a state in place of the older one. Its number is higher than all before.
func (s *stateHalves) write(number uint64, text []byte) error {
	if len(text) > longestState {
		return fmt.Errorf("it has %d bytes", len(text))
	}
	header := stateHeader{Magic: stateMagic, Number: number, Length: uint64(len(text)), Sum: sha256.Sum256(text)}
	head, _ := binary.Append(nil, binary.LittleEndian, header) // it has a fixed size
	for parts, at := [][]byte{head, text}, s.turn*stateHalf; len(parts) > 0; {
		n, err := unix.Pwritev(s.fd, parts, at)
		if err != nil && err != unix.EINTR {
			return err
		}
		n = max(n, 0)
		parts, at = without(parts, n), at+int64(n)
	}
	s.turn = 1 - s.turn
	return nil
}

// without leaves out the first n bytes.
func without(parts [][]byte, n int) [][]byte {
	for len(parts) > 0 && n >= len(parts[0]) {
		parts, n = parts[1:], n-len(parts[0])
	}
	if n > 0 {
		parts[0] = parts[0][n:]
	}
	return parts
}

// readStateHalves gives the newer of the two states that are whole, and nil without one.
func readStateHalves(fd int) (newest []byte) {
	last := uint64(0)
	for half := range int64(2) {
		if number, text := readStateHalf(fd, half*stateHalf); text != nil && number >= last {
			last, newest = number, text
		}
	}
	return newest
}

func readStateHalf(fd int, at int64) (number uint64, text []byte) {
	header := make([]byte, stateHeaderSize)
	if !readWhole(fd, header, at) {
		return 0, nil
	}
	var h stateHeader
	_ = binary.Read(bytes.NewReader(header), binary.LittleEndian, &h) // it has its size
	if h.Magic != stateMagic || h.Length > longestState {
		return 0, nil
	}
	text = make([]byte, h.Length)
	if !readWhole(fd, text, at+stateHeaderSize) || sha256.Sum256(text) != h.Sum {
		return 0, nil
	}
	return h.Number, text
}

func readWhole(fd int, into []byte, at int64) bool {
	for read := 0; read < len(into); {
		n, err := unix.Pread(fd, into[read:], at+int64(read))
		if err != nil && err != unix.EINTR || err == nil && n == 0 {
			return false
		}
		read += max(n, 0)
	}
	return true
}
