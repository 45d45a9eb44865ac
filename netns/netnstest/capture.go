package netnstest

import (
	"encoding/binary"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/netns"
)

// pcapEnv names the directory for the files of Capture.
const pcapEnv = "BOXWIRE_PCAP_DIR"

// Capture records the packets that a link of the namespace sends and receives, from now to
// the end of the test. If the test fails, it writes them into a pcap file, whose path is in
// the log. The file is in the directory that BOXWIRE_PCAP_DIR names, or else where go test
// -artifacts keeps the test's files. Without both, nothing is written.
//
// Capture keeps the last 16 MiB of packets in memory. The kernel delivers a packet a moment
// after it was sent.
func Capture(t testing.TB, ns *netns.NS, link string) {
	t.Helper()
	c := startCapture(t, ns, link)
	t.Cleanup(func() {
		packets := c.stop()
		if !t.Failed() || len(packets) == 0 {
			return
		}
		dir := os.Getenv(pcapEnv)
		if dir == "" {
			if f := flag.Lookup("test.artifacts"); f == nil || f.Value.String() != "true" {
				t.Logf("netnstest: %d packets of %s in netns %v: go test -artifacts keeps them", len(packets), link, ns)
				return
			}
			dir = t.ArtifactDir()
		}
		name := fileNames.Replace(t.Name() + "-" + ns.String() + "-" + link + ".pcap")
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pcap(c.linkType, packets), 0o644); err != nil {
			t.Logf("netnstest: the packets of %s: %v", link, err)
			return
		}
		t.Logf("netnstest: %d packets of %s in netns %v: %s", len(packets), link, ns, path)
	})
}

// fileNames makes names of files that shells, archives and other systems take.
var fileNames = strings.NewReplacer("/", "_", " ", "_", ":", "_", "[", "", "]", "")

// packet is one frame.
type packet struct {
	at   time.Time
	data []byte
}

// Link types of pcap files (https://www.tcpdump.org/linktypes.html).
const (
	linkEthernet = 1
	linkRaw      = 101 // begins with the IP header
)

// pcap encodes the classic file format with times in nanoseconds
// (draft-ietf-opsawg-pcap).
func pcap(linkType uint32, packets []packet) []byte {
	const magic, snapLen = 0xa1b23c4d, 1 << 18
	b := binary.LittleEndian.AppendUint32(nil, magic)
	b = binary.LittleEndian.AppendUint16(b, 2) // version 2.4
	b = binary.LittleEndian.AppendUint16(b, 4)
	b = binary.LittleEndian.AppendUint64(b, 0) // reserved
	b = binary.LittleEndian.AppendUint32(b, snapLen)
	b = binary.LittleEndian.AppendUint32(b, linkType)
	for _, p := range packets {
		b = binary.LittleEndian.AppendUint32(b, uint32(p.at.Unix()))
		b = binary.LittleEndian.AppendUint32(b, uint32(p.at.Nanosecond()))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(p.data)))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(p.data)))
		b = append(b, p.data...)
	}
	return b
}
