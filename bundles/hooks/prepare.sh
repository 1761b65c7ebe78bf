sed -i "s|BUNDLE|$PWD|" config.json
: >hooks.log
