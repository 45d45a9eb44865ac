package floor

import (
	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

const (
	newTable    = subsysNftables
	deleteTable = subsysNftables | 2
	newSet      = subsysNftables | 9
	deleteFlows = 1<<8 | 2 // CTNETLINK's DELETE
)

// NewSet builds the transaction that adds a table with a hash set, whose keys have a length.
func NewSet(table, set string, keyLen uint32) []byte {
	b := Message(nil, batchBegin, 0, nfgen(unix.AF_UNSPEC, 10))
	body := nl.AppendString(nfgen(unix.NFPROTO_INET, 0), unix.NFTA_TABLE_NAME, table)
	b = Message(b, newTable, unix.NLM_F_CREATE|unix.NLM_F_EXCL, body)
	body = nl.AppendString(nfgen(unix.NFPROTO_INET, 0), unix.NFTA_SET_TABLE, table)
	body = nl.AppendString(body, unix.NFTA_SET_NAME, set)
	body = nl.AppendBE32(body, unix.NFTA_SET_KEY_LEN, keyLen)
	body = nl.AppendBE32(body, unix.NFTA_SET_ID, 1)
	b = Message(b, newSet, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, body)
	return Message(b, batchEnd, 0, nfgen(unix.AF_UNSPEC, 10))
}

// DeleteTable builds the transaction that deletes a table.
func DeleteTable(table string) []byte {
	b := Message(nil, batchBegin, 0, nfgen(unix.AF_UNSPEC, 10))
	body := nl.AppendString(nfgen(unix.NFPROTO_INET, 0), unix.NFTA_TABLE_NAME, table)
	b = Message(b, deleteTable, unix.NLM_F_ACK, body)
	return Message(b, batchEnd, 0, nfgen(unix.AF_UNSPEC, 10))
}

// CountElements reads a set and counts its elements. While the kernel makes the hash table of the
// set larger, it returns some elements twice and lacks others: the set is read again.
func (s *Socket) CountElements(table, set string) (int, error) {
	for range 100 {
		seen, twice := make(map[string]bool), false
		_, err := s.Dump(GetElements(table, set), func(body []byte) {
			for list := (Attrs{Rest: body[4:]}); list.Next(); {
				if list.Type != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
					continue
				}
				for elem := (Attrs{Rest: list.Data}); elem.Next(); {
					twice = twice || seen[string(elem.Data)]
					seen[string(elem.Data)] = true
				}
			}
		})
		if err != nil || !twice {
			return len(seen), err
		}
	}
	return 0, unix.EBUSY
}

// DeleteFlows is the request to forget all flows in conntrack.
func DeleteFlows() []byte { return Message(nil, deleteFlows, unix.NLM_F_ACK, nfgen(unix.AF_UNSPEC, 0)) }
