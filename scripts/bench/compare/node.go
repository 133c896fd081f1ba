package compare

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

var needsNode = need{"node", "nodejs"}

// nodeEndings are what the Node servers know.
var nodeEndings = []ending{byShutdown, byDying}

func (p *place) installNode(s server) {
	for _, name := range []string{"server.js", "cluster.js", "pm2.json"} {
		if err := p.install(name, "END", string(s.end), "DELAY", fmt.Sprint(s.delay.Milliseconds())); err != nil {
			fmt.Fprintln(p.log, err) // node says then that the file is missing
		}
	}
}

func bareNode(p *place, s server) []string {
	p.installNode(s)
	return []string{"node", p.path("server.js")}
}

func nodeCluster() tool {
	return tool{
		name: "node cluster", about: "a Node server; its primary forks another worker on HUP, and disconnects the old one when the new one listens; KILL after 2 s",
		endings: []ending{byItself}, faults: everyFault, needs: []need{needsNode}, bare: bareNode,
		start: func(p *place, s server) (running, error) {
			p.installNode(s)
			return p.startSignalled(syscall.SIGHUP, []string{"node", p.path("cluster.js")})
		},
	}
}

// pm2 runs a server in cluster mode, in which it can reload it.
type pm2 struct{ *place }

func pm2Reload() tool {
	return tool{
		name: "pm2 reload", about: "a Node server, one instance in cluster mode, `pm2 reload`",
		endings: nodeEndings, faults: everyFault, needs: []need{needsNode, {"npm", "npm"}}, prepare: installPm2, bare: bareNode,
		start: func(p *place, s server) (running, error) {
			p.installNode(s)
			m := &pm2{p}
			return m, m.do("start", p.path("pm2.json"))
		},
	}
}

// pm2Folder is where pm2 is installed. It stays: another run finds it there.
func pm2Folder() (string, error) {
	cache, err := os.UserCacheDir()
	return filepath.Join(cache, "grace-bench", "pm2"), err
}

// do runs a command of pm2, with a home of its own.
func (m *pm2) do(args ...string) error {
	folder, err := pm2Folder()
	if err != nil {
		return err
	}
	command := append([]string{filepath.Join(folder, "node_modules", ".bin", "pm2")}, args...)
	return m.ask(command, "PM2_HOME="+m.path("home"), "PM2_DISABLE_VERSION_CHECK=true")
}

func (m *pm2) upgrade() error { return m.do("reload", "server") }

func (m *pm2) supervisor() int {
	pid, _ := m.readPid("home/pm2.pid") // none when it has ended
	return pid
}

func (m *pm2) stop() { _ = m.do("kill") }
