package link

const maxVLAN = 4094
