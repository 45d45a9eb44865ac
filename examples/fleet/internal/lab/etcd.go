//go:build linux

package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
)

// The ports of a member.
const (
	clientPort = 2379
	peerPort   = 2380
)

// memberConfig is what the process of a member is told.
type memberConfig struct {
	Name, Dir, Addr string
	Cluster         string // "m1=http://198.18.0.2:2380,..."
	Tick, Election  uint   // milliseconds
}

// etcdMain is the program of a member. It ends by SIGTERM.
func etcdMain(args []string) int {
	if err := runEtcd(args); err != nil {
		fmt.Fprintln(os.Stderr, "lab: etcd:", err)
		return 1
	}
	return 0
}

func runEtcd(args []string) error {
	var mc memberConfig
	if len(args) != 1 {
		return errors.New("want one argument")
	}
	if err := json.Unmarshal([]byte(args[0]), &mc); err != nil {
		return err
	}
	at := func(port int) []url.URL {
		return []url.URL{{Scheme: "http", Host: fmt.Sprintf("%s:%d", mc.Addr, port)}}
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = mc.Name, mc.Dir
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = at(clientPort), at(clientPort)
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = at(peerPort), at(peerPort)
	cfg.InitialCluster, cfg.InitialClusterToken = mc.Cluster, "fleet-lab"
	cfg.TickMs, cfg.ElectionMs = mc.Tick, mc.Election
	cfg.UnsafeNoFsync = true
	cfg.LogLevel, cfg.LogOutputs = "error", []string{"stderr"}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	defer e.Close()
	select {
	case <-stop:
		return nil
	case err := <-e.Err():
		return err
	}
}
