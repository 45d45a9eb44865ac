package main

// modules are loaded before the tests, where the kernel has them and has not
// built them in: what the library's link kinds, nftables, traffic control and
// the witnesses stand on. The kernel asks modprobe for what is missing here, but
// not for br_netfilter and the like, and within a test that costs time. Two tests
// must not ask at once: busybox takes a module that is still being loaded for one
// that is there, and the kernel answers the second test with ENOENT.
var modules = []string{
	// Links.
	"dummy", "veth", "bridge", "br_netfilter", "8021q", "bonding", "ifb", "macvlan", "macvtap", "ipvlan", "ipvtap",
	"tun", "vrf", "vxlan", "geneve", "wireguard", "netkit", "nlmon", "ip_gre", "ip6_gre", "ipip", "sit", "ip6_tunnel",
	"xfrm_interface", "team",
	// Routes.
	"fou", "mpls_router", "mpls_iptunnel", "seg6_iptunnel",
	// nftables and connection tracking.
	"nf_tables", "nf_conntrack", "nf_conntrack_netlink", "nfnetlink_log", "nft_ct", "nft_nat", "nft_masq", "nft_redir", "nft_chain_nat",
	"nft_fib_inet", "nft_fib_ipv4", "nft_fib_ipv6", "nft_limit", "nft_log", "nft_meta_bridge", "nft_reject_inet",
	"nft_reject_bridge", "nft_socket", "nft_tproxy", "nft_tunnel", "nft_numgen", "nft_hash", "nft_objref", "nft_quota",
	"nft_counter", "nft_flow_offload", "nft_synproxy", "nf_flow_table_inet", "nf_nat_ftp",
	// Traffic control.
	"sch_netem", "sch_tbf", "sch_htb", "sch_fq", "sch_fq_codel", "sch_ingress", "sch_prio", "cls_u32", "cls_flower",
	"cls_matchall", "cls_bpf", "cls_fw", "act_mirred", "act_police", "act_gact", "act_bpf",
	// What ss and packet sockets ask.
	"af_packet", "inet_diag", "tcp_diag", "udp_diag", "unix_diag", "netlink_diag", "packet_diag", "sctp",
}
