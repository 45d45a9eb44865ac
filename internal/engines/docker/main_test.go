// Package docker has the scenes beside Docker: dockerd of Debian's docker.io with its own containerd, runc and iptables.
package docker

import (
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
)

func TestMain(m *testing.M) { machine.Main(m) }
