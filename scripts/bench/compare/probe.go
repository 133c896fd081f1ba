package compare

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// answer is who answers at an address.
type answer struct{ generation, pid int }

// askTime bounds one question: a queue in which nobody accepts does not answer at all.
const askTime = time.Second

func ask(address string) (answer, error) {
	c, err := net.DialTimeout("tcp", address, askTime)
	if err != nil {
		return answer{}, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(askTime))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"); err != nil {
		return answer{}, err
	}
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return answer{}, err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return answer{}, errors.New(response.Status)
	}
	generation, _ := strconv.Atoi(response.Header.Get("X-Generation"))
	pid, _ := strconv.Atoi(response.Header.Get("X-Pid"))
	return answer{generation, pid}, nil
}

// Questions come quickly at first, so that short times are measured well, and more slowly later, so that long ones are not
// measured under a load of questions.
const (
	quickly  = 500 * time.Microsecond
	slowly   = 5 * time.Millisecond
	hundreds = 200 * time.Millisecond
)

var (
	errEnded = errors.New("the process has ended")
	errTime  = errors.New("the time is over")
)

func awaitVersion(address string, number int, within time.Duration) (answer, error) {
	return await(address, func(a answer) bool { return a.generation == number }, within, func() bool { return false })
}

// await asks until an answer matches. It gives up when ended reports so.
func await(address string, match func(answer) bool, within time.Duration, ended func() bool) (answer, error) {
	begun := time.Now()
	for time.Since(begun) < within {
		if a, err := ask(address); err == nil && match(a) {
			return a, nil
		}
		if ended() {
			return answer{}, errEnded
		}
		pause := quickly
		if time.Since(begun) > hundreds {
			pause = slowly
		}
		time.Sleep(pause)
	}
	return answer{}, errTime
}
