mkdir -p data
echo 'from the host' >data/file
chown -R 1000:1000 data
sed -i "s|\"source\": \"data\"|\"source\": \"$PWD/data\"|" config.json
